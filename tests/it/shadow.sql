-- Every way in which what is in a database can notify.
CREATE EXTENSION tcn;
CREATE SCHEMA app;
CREATE TABLE app.seen (v text);
CREATE TABLE app.plain (v text);
CREATE TABLE app.pinned (v text);
CREATE TABLE app.emptied (v text);
CREATE TABLE app.qualified (v text);
CREATE TABLE app.late (v text);
CREATE TABLE app.ruled (v text);
CREATE TABLE app.defaulted (v text, w bool DEFAULT (pg_notify('ch', 'default') IS NULL));
CREATE TABLE app.c (v text PRIMARY KEY);
CREATE FUNCTION app.plain() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_notify('ch', new.v); INSERT INTO seen VALUES (new.v); RETURN new; END $$;
CREATE FUNCTION app.pinned() RETURNS trigger LANGUAGE plpgsql SET search_path = app, public AS
  $$ BEGIN PERFORM pg_notify('ch', new.v); INSERT INTO seen VALUES (new.v); RETURN new; END $$;
CREATE FUNCTION app.in_between() RETURNS void LANGUAGE plpgsql SET search_path = app, "A ""b", pg_catalog, "$user" AS
  $$ BEGIN PERFORM pg_notify('ch', 'in between'); END $$;
CREATE FUNCTION app.first() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, app, pg_temp AS
  $$ BEGIN PERFORM pg_notify('ch', 'first'); END $$;
CREATE FUNCTION app.emptied() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS
  $$ BEGIN PERFORM pg_notify('ch', new.v); INSERT INTO app.seen VALUES (new.v); RETURN new; END $$;
CREATE FUNCTION app.qualified() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_catalog.pg_notify('ch', new.v); RETURN new; END $$;
CREATE FUNCTION app.late() RETURNS trigger LANGUAGE plpgsql SET search_path = app AS
  $$ BEGIN PERFORM pg_notify('ch', new.v); IF new.v = 'fails' THEN RAISE 'late'; END IF; RETURN new; END $$;
CREATE FUNCTION app.called(payload text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('ch', payload); END $$;
CREATE FUNCTION app.definer() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
  $$ BEGIN PERFORM "pg_notify"('ch', 'definer'); END $$;
CREATE FUNCTION app.in_sql() RETURNS void LANGUAGE sql AS $$ SELECT pg_notify('ch', 'in sql') $$;
CREATE FUNCTION app.dynamic() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN EXECUTE format('SELECT pg_notify(%L, %L)', 'ch', 'dynamic'); END $$;
CREATE FUNCTION app.by_name(channel text, payload text) RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pgweir.notify(channel, payload); END $$;
CREATE FUNCTION app.caught() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_notify('ch', 'caught'); RAISE 'x'; EXCEPTION WHEN others THEN END $$;
CREATE FUNCTION app.command() RETURNS void LANGUAGE plpgsql AS $$ BEGIN NOTIFY ch, 'command'; END $$;
CREATE FUNCTION app.command_in_sql() RETURNS void LANGUAGE sql AS $$ NOTIFY ch, 'command in sql' $$;
CREATE FUNCTION app.dynamic_command() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN EXECUTE 'NOTIFY ch, ''dynamic command'''; END $$;
CREATE FUNCTION app.both() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_notify('ch', 'one'); PERFORM pg_catalog.pg_notify('ch', 'other'); END $$;
CREATE FUNCTION app.atomic() RETURNS void BEGIN ATOMIC SELECT pg_notify('ch', 'atomic'); END;
CREATE FUNCTION app.makes() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('ch', ''); CREATE TABLE x (); END $$;
CREATE FUNCTION app.silent(notify text) RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN /* pg_notify('a', 'b') */ -- NOTIFY x;
  RETURN 'pg_notify(' || notify; END $$;
CREATE PROCEDURE app.in_procedure(int, app.c) LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('ch', 'procedure'); END $$;
CREATE PROCEDURE app.commits() LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('ch', 'commits'); COMMIT; END $$;
CREATE VIEW app.viewed AS SELECT pg_notify('ch', 'view') IS NULL AS n;
CREATE RULE told AS ON UPDATE TO app.ruled DO ALSO NOTIFY ch, 'rule';
CREATE TRIGGER t AFTER INSERT ON app.plain FOR EACH ROW EXECUTE FUNCTION app.plain();
CREATE TRIGGER t AFTER INSERT ON app.pinned FOR EACH ROW EXECUTE FUNCTION app.pinned();
CREATE TRIGGER t AFTER INSERT ON app.emptied FOR EACH ROW EXECUTE FUNCTION app.emptied();
CREATE TRIGGER t AFTER INSERT ON app.qualified FOR EACH ROW EXECUTE FUNCTION app.qualified();
CREATE TRIGGER t AFTER INSERT ON app.c FOR EACH ROW EXECUTE FUNCTION triggered_change_notification('ch');
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON app.late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.late();
GRANT USAGE ON SCHEMA app TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA app TO PUBLIC;
