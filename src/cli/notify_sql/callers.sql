WITH routine AS (
  SELECT p.oid, prokind, proowner, prosrc, lanname, extname,
    -- pg_proc.prosqlbody is there since version 14.
    CASE WHEN lanname = 'sql' AND prosrc = '' THEN to_jsonb(p) ->> 'prosqlbody' END AS bound,
    (SELECT substr(setting, 13) FROM unnest(proconfig) AS setting WHERE starts_with(setting, 'search_path=')) AS own_path,
    format('ALTER %s %s ', CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,
      (pg_identify_object('pg_proc'::regclass, p.oid, 0)).identity) AS alter
  FROM pg_proc p
    JOIN pg_language l ON l.oid = prolang
    LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    LEFT JOIN pg_extension e ON e.oid = d.refobjid
  WHERE prokind IN ('f', 'p') AND lanname NOT IN ('c', 'internal') AND (prosrc ~* 'notify' OR lanname = 'sql' AND prosrc = '')
    AND pronamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema', 'pgweir'))
),
-- Their texts without comments; then without what stands between quotes, and that by itself.
code AS (
  SELECT *, regexp_replace(prosrc, '(''(?:[^'']|'''')*'')|--[^\n]*|/\*(?:[^*]|\*+[^*/])*\*+/', '\1 ', 'g') AS code
  FROM routine
),
split AS (
  SELECT *, regexp_replace(code, '''(?:[^'']|'''')*''', '''''', 'g') AS bare,
    (SELECT string_agg(literal[1], ' ') FROM regexp_matches(code, '''(?:[^'']|'''')*''', 'g') AS literal) AS quoted
  FROM code
),
-- The schemas of their paths, spelled as in SET.
path AS (
  SELECT oid, array_agg(CASE name WHEN '' THEN '''''' ELSE quote_ident(name) END ORDER BY place) AS path
  FROM routine,
    regexp_matches(coalesce(own_path, current_setting('pgweir.search_path')), '"(?:[^"]|"")*"|[^,\s]+', 'g')
      WITH ORDINALITY AS listed(found, place),
    replace(CASE WHEN found[1] LIKE '"%' THEN substr(found[1], 2, length(found[1]) - 2) ELSE lower(found[1]) END, '""', '"')
      AS name
  GROUP BY oid
),
-- A path adopts that names pgweir before pg_catalog; one that does not name pg_catalog has it in front.
place AS (
  SELECT *, array_position(path, 'pg_catalog') AS pg_catalog,
    coalesce(array_position(path, 'pgweir') < array_position(path, 'pg_catalog'), false) AS is_adopted
  FROM split LEFT JOIN path USING (oid)
),
-- What undoes it is in the path itself: its first two schemas were added, or only pgweir, or (there is no schema
-- pgweir_undo_reset) all of it.
planned AS (
  SELECT *,
    alter || 'SET search_path = ' || array_to_string(CASE
      WHEN pg_catalog > 1 THEN path[:pg_catalog - 1] || '{pgweir}' || path[pg_catalog:]
      WHEN own_path IS NULL THEN '{pgweir,pg_catalog}' || path || '{pgweir_undo_reset}'
      ELSE '{pgweir,pg_catalog}' || path
    END, ', ') AS adopt,
    alter || coalesce('SET search_path = ' || nullif(array_to_string(CASE
      WHEN own_path IS NULL OR 'pgweir_undo_reset' = ANY (path) THEN NULL
      WHEN path[:2] = '{pgweir,pg_catalog}' THEN path[3:]
      ELSE array_remove(path, 'pgweir')
    END, ', '), ''), 'RESET search_path') AS undo,
    CASE
      WHEN extname IS NOT NULL THEN 'belongs to extension ' || extname
      WHEN NOT pg_has_role(proowner, 'USAGE') THEN 'belongs to role ' || pg_get_userbyid(proowner)
      WHEN prokind = 'p' AND own_path IS NULL AND bare ~* '\m(commit|rollback)\M' THEN 'with a path of its own it could not COMMIT'
      WHEN coalesce(pg_catalog, 1) = 1 AND code ~* '\mcreate\s+(?!((local|global)\s+)?temp|((unique\s+)?index|trigger)\M)'
        THEN 'makes objects, which would go to schema pgweir'
    END AS obstacle
  FROM place
),
called AS (
  SELECT 'pg_proc'::regclass::oid AS class, oid, calls, goes = 'by path' AND NOT is_adopted AND obstacle IS NULL AS is_open,
    goes = 'adopted' OR goes = 'by path' AND is_adopted AS is_adopted, adopt,
    CASE WHEN goes = 'by path' AND (own_path IS NOT NULL OR NOT is_adopted) THEN undo END AS undo,
    CASE
      WHEN goes NOT IN ('by path', 'adopted') THEN goes
      WHEN goes = 'adopted' OR own_path IS NOT NULL AND is_adopted THEN NULL
      WHEN is_adopted THEN 'by the path of this session'
      WHEN obstacle IS NULL AND own_path IS NULL THEN 'has no path of its own, gets this session''s'
      ELSE obstacle
    END AS note
  FROM planned, LATERAL (VALUES
    ('pg_notify()', 'by path', bare ~* '(?<![.\w"])("pg_notify"|pg_notify)\s*\('),
    ('EXECUTE … pg_notify()', 'by path', bare ~* '\mexecute\M' AND quoted ~* '(?<![.\w"])("pg_notify"|pg_notify)\s*\('),
    ('pgweir.notify()', 'adopted', code ~* '\mpgweir"?\s*\.\s*"?(pg_)?notify\M'),
    ('pg_catalog.pg_notify()', 'names pg_catalog: let it call pgweir.notify', code ~* '\mpg_catalog"?\s*\.\s*"?pg_notify\M'),
    ('NOTIFY', 'a command: let it call pgweir.notify',
      bare ~* '(^|;|\m(begin|then|else|loop)\M|\$\w*\$)\s*notify\s+("[^"]+"|[[:alpha:]_][\w$]*)\s*(,|;|$)'),
    ('EXECUTE … NOTIFY', 'a command: let it call pgweir.notify', bare ~* '\mexecute\M' AND quoted ~* '''\s*notify\s')
  ) AS way(calls, goes, is_so)
  WHERE is_so
),
-- What was resolved when it was made has the function's number in it, or the command itself.
tree AS (
  SELECT 'pg_proc'::regclass::oid AS class, oid, bound AS tree FROM routine
  UNION ALL SELECT 'pg_rewrite'::regclass, oid, concat(ev_action, ev_qual) FROM pg_rewrite
  UNION ALL SELECT 'pg_attrdef'::regclass, oid, adbin::text FROM pg_attrdef
  UNION ALL SELECT 'pg_constraint'::regclass, oid, conbin::text FROM pg_constraint
  UNION ALL SELECT 'pg_policy'::regclass, oid, concat(polqual, polwithcheck) FROM pg_policy
  UNION ALL SELECT 'pg_trigger'::regclass, oid, tgqual::text FROM pg_trigger
  UNION ALL SELECT 'pg_type'::regclass, oid, typdefaultbin::text FROM pg_type
),
stays AS (
  SELECT class, oid, 'pg_notify()' AS calls, 'bound when it was made: make it anew with pgweir.notify' AS note FROM tree
    WHERE tree ~ format(':funcid %s\M', 'pg_catalog.pg_notify(text,text)'::regprocedure::oid)
  UNION ALL
  SELECT class, oid, 'NOTIFY', 'a command: make it a trigger' FROM tree WHERE tree ~ '\{NOTIFY(STMT)? :conditionname '
  UNION ALL
  SELECT 'pg_trigger'::regclass, t.oid, 'pg_notify()', 'written in C' FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid
    WHERE prosrc = 'triggered_change_notification'
)
SELECT pg_describe_object(class, oid, 0) AS caller,
  (SELECT string_agg(DISTINCT tgrelid::regclass::text, ', ') FROM pg_trigger
    WHERE class = 'pg_proc'::regclass AND tgfoid = c.oid AND NOT tgisinternal) AS trigger_of,
  calls, CASE WHEN is_adopted THEN 'adopted' WHEN is_open THEN 'can be adopted' ELSE 'stays a NOTIFY' END AS state,
  CASE WHEN is_open THEN adopt END AS adopt, CASE WHEN is_open OR is_adopted THEN undo END AS undo, note
FROM (
  SELECT class, oid, calls, is_open, is_adopted, adopt, undo, note FROM called
  UNION ALL SELECT class, oid, calls, false, false, NULL, NULL, note FROM stays
) AS c
ORDER BY state, caller, calls
