DO $remove$
#variable_conflict use_column
DECLARE
  named text := (SELECT string_agg(DISTINCT caller, ', ') FROM (
{callers}
  ) AS c WHERE undo IS NOT NULL AND state = 'adopted' OR calls = 'pgweir.notify()');
BEGIN
  IF named IS NOT NULL THEN
    RAISE EXCEPTION 'still named by %', named USING HINT = 'See pgweir notify-sql --undo.';
  END IF;
END
$remove$;
DROP FUNCTION pgweir.notify(text, text), pgweir.pg_notify(text, text);
DROP SCHEMA pgweir;
COMMIT;
