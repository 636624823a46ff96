
-- INFO reaches the client, here pgweir, whatever client_min_messages says, and not the server's log. What is not ASCII goes
-- this way only if its bytes stay the same on the way to the client. A standby refuses a NOTIFY.
CREATE OR REPLACE FUNCTION pgweir.{name}(channel text, payload text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED AS $$
BEGIN
  IF pg_catalog.current_setting('pgweir.intercept', true) OPERATOR(pg_catalog.=) 'on'
    AND pg_catalog.octet_length(channel) OPERATOR(pg_catalog.>=) 1
    AND pg_catalog.octet_length(channel) OPERATOR(pg_catalog.<) 64
    AND coalesce(pg_catalog.octet_length(payload), 0) OPERATOR(pg_catalog.<) 8000
    AND (pg_catalog.pg_client_encoding() OPERATOR(pg_catalog.=) pg_catalog.getdatabaseencoding()
      OR pg_catalog.concat(channel, payload) COLLATE pg_catalog."C" OPERATOR(pg_catalog.!~) '[^[:ascii:]]')
    AND NOT pg_catalog.pg_is_in_recovery()
  THEN
    RAISE INFO USING ERRCODE = 'PW001', COLUMN = channel, MESSAGE = coalesce(payload, '');
  ELSE
    PERFORM pg_catalog.pg_notify(channel, payload);
  END IF;
END
$$;
GRANT EXECUTE ON FUNCTION pgweir.{name}(text, text) TO PUBLIC;
