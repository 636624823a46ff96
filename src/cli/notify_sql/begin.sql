BEGIN;
-- What has no search_path of its own has this session's. Names below are looked up in pg_catalog and nowhere else.
DO $$ BEGIN PERFORM pg_catalog.set_config('pgweir.search_path', pg_catalog.current_setting('search_path'), true); END $$;
SET LOCAL search_path = '';
SET LOCAL standard_conforming_strings = on;
