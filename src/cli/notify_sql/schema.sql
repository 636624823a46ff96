-- On a backend that pgweir opened, pgweir.notify and pgweir.pg_notify hand a notification to pgweir, which sends it when the
-- transaction has committed, without the lock over all databases that a NOTIFY holds through its COMMIT. On any other
-- connection, and for whatever pg_notify refuses, they call pg_notify. All this may be run again.
\set ON_ERROR_STOP on
BEGIN;
SET LOCAL search_path = '';
SET LOCAL standard_conforming_strings = on;
CREATE SCHEMA IF NOT EXISTS pgweir;
-- Whoever owns it can put anything in the way of those whose search_path names it.
DO $$
DECLARE
  owner name := (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'pgweir');
BEGIN
  IF owner <> current_user THEN
    RAISE EXCEPTION 'schema pgweir belongs to role %', owner USING HINT = 'Run this as that role, or drop the schema.';
  END IF;
END
$$;
