// pgjdbc in the query mode and with the threshold that are named: batches, COPY, cursors, savepoints, keys, notifications.

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.postgresql.PGConnection;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;

public class WithJdbc {
    static final String SCHEMA = System.getenv("SCHEMA");
    static String mode;

    static Connection connect(String options) throws SQLException {
        var at = System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        var url = "jdbc:postgresql://" + at + "?sslmode=disable&currentSchema=" + SCHEMA + "&" + mode + "&" + options;
        return DriverManager.getConnection(url, System.getenv("PGUSER"), System.getenv("PGPASSWORD"));
    }

    interface Act {
        void run() throws Exception;
    }

    static void step(String title, Act act) throws Exception {
        System.out.println("== " + title);
        act.run();
    }

    static void show(Object... values) {
        System.out.println(String.join(" ", Arrays.stream(values).map(String::valueOf).toList()));
    }

    static void fails(Act act) throws Exception {
        try {
            act.run();
        } catch (SQLException error) {
            var said = error instanceof BatchUpdateException && error.getNextException() != null ? error.getNextException() : error;
            show("error", said.getSQLState(), ((PSQLException) said).getServerErrorMessage().getMessage());
            return;
        }
        throw new AssertionError("an error was expected");
    }

    static String value(Connection db, String sql) throws SQLException {
        try (var statement = db.createStatement(); var rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getString(1);
        }
    }

    static void run(Connection db, String sql) throws SQLException {
        try (var statement = db.createStatement()) {
            statement.execute(sql);
        }
    }

    public static void main(String[] arguments) throws Exception {
        mode = arguments[0];
        var name = mode.replace("preferQueryMode=", "").replace("prepareThreshold=1", "named at once").replace("prepareThreshold=5", "by default").replace("&", ", ");
        show("pgjdbc,", name, org.postgresql.util.DriverInfo.DRIVER_VERSION);
        var db = connect("");

        step("generated keys, arrays, json, uuids and bytes", () -> {
            run(db, "CREATE TABLE items (id serial PRIMARY KEY, name text UNIQUE, tags text[], extra jsonb, raw bytea, price numeric(12, 2) DEFAULT 0)");
            try (var put = db.prepareStatement("INSERT INTO items (name, tags, extra, raw) VALUES (?, ?, ?, decode(?, 'hex'))", Statement.RETURN_GENERATED_KEYS)) {
                var json = new PGobject();
                json.setType("jsonb");
                json.setValue("{\"deep\": [1, null]}");
                put.setString(1, "it's");
                put.setArray(2, db.createArrayOf("text", new String[] {"a", "b,c"}));
                put.setObject(3, json);
                put.setString(4, "00ff");
                put.executeUpdate();
                var keys = put.getGeneratedKeys();
                keys.next();
                show(keys.getInt("id"), keys.getString("extra"), Arrays.toString((String[]) keys.getArray("tags").getArray()), Arrays.toString(keys.getBytes("raw")));
            }
        });

        step("a statement past its threshold, beside others", () -> {
            var sums = new ArrayList<Integer>();
            try (var add = db.prepareStatement("SELECT ?::int + 1"); var other = db.prepareStatement("SELECT count(*) FROM items WHERE name <> ?")) {
                for (int n = 0; n < 20; n++) {
                    add.setInt(1, n);
                    var rows = add.executeQuery();
                    rows.next();
                    sums.add(rows.getInt(1));
                    other.setString(1, "x");
                    other.executeQuery();
                }
            }
            show(sums);
        });

        step("batches, also rewritten, and one that fails", () -> {
            for (var options : List.of("", "reWriteBatchedInserts=true")) {
                try (var own = connect(options); var put = own.prepareStatement("INSERT INTO items (name) VALUES (?)")) {
                    for (int n = 0; n < 300; n++) {
                        put.setString(1, options + n);
                        put.addBatch();
                    }
                    show(put.executeBatch().length);
                    own.setAutoCommit(false);
                    for (var value : List.of("new", "it's", "newer")) {
                        put.setString(1, value);
                        put.addBatch();
                    }
                    fails(put::executeBatch);
                    own.rollback();
                }
            }
            show(value(db, "SELECT count(*) FROM items"));
        });

        step("rows in portions, and a cursor that scrolls", () -> {
            db.setAutoCommit(false);
            try (var statement = db.createStatement()) {
                statement.setFetchSize(50);
                int count = 0;
                for (var rows = statement.executeQuery("SELECT * FROM items ORDER BY id"); rows.next(); ) count++;
                show(count);
            }
            try (var statement = db.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
                var rows = statement.executeQuery("SELECT id, price FROM items ORDER BY id LIMIT 10");
                rows.absolute(5);
                rows.updateDouble("price", 9.5);
                rows.updateRow();
                rows.last();
                show(rows.getRow());
            }
            db.commit();
            db.setAutoCommit(true);
            show(value(db, "SELECT sum(price) FROM items"));
        });

        step("transactions, savepoints, and an error in one", () -> {
            db.setAutoCommit(false);
            db.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            run(db, "INSERT INTO items (name) VALUES ('outer')");
            var savepoint = db.setSavepoint("s");
            fails(() -> run(db, "INSERT INTO items (name) VALUES ('outer')"));
            fails(() -> run(db, "SELECT 1"));
            db.rollback(savepoint);
            show(value(db, "SHOW transaction_isolation"));
            db.commit();
            run(db, "DELETE FROM items");
            db.rollback();
            db.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
            db.setReadOnly(true);
            fails(() -> run(db, "DELETE FROM items"));
            db.rollback();
            db.setReadOnly(false);
            db.setAutoCommit(true);
            show(value(db, "SELECT count(*) FROM items WHERE name = 'outer'"));
        });

        step("connections in threads, on one row", () -> {
            var threads = new ArrayList<Thread>();
            for (int n = 0; n < 8; n++) {
                int amount = n;
                threads.add(new Thread(() -> {
                    try (var own = connect(""); var add = own.prepareStatement("UPDATE items SET price = price + ? WHERE name = 'outer'")) {
                        for (int i = 0; i < 8; i++) {
                            add.setInt(1, amount);
                            add.executeUpdate();
                        }
                    } catch (SQLException error) {
                        error.printStackTrace();
                    }
                }));
            }
            for (var thread : threads) thread.start();
            for (var thread : threads) thread.join();
            show(value(db, "SELECT price FROM items WHERE name = 'outer'"));
        });

        step("COPY in and out, and one that fails", () -> {
            run(db, "CREATE TABLE copied (a int, b text)");
            var copy = db.unwrap(PGConnection.class).getCopyAPI();
            var lines = new StringBuilder();
            for (int n = 0; n < 10_000; n++) lines.append(n).append("\trow ").append(n).append('\n');
            show(copy.copyIn("COPY copied FROM STDIN", new StringReader(lines.toString())));
            var out = new StringWriter();
            show(copy.copyOut("COPY copied TO STDOUT", out), out.toString().length());
            fails(() -> copy.copyIn("COPY copied FROM STDIN", new StringReader("no number\tx\n")));
        });

        step("LISTEN and NOTIFY", () -> {
            run(db, "LISTEN \"" + SCHEMA + " news\"");
            try (var own = connect(""); var notify = own.prepareStatement("SELECT pg_notify(?, ?)")) {
                notify.setString(1, SCHEMA + " news");
                notify.setString(2, "hello");
                notify.executeQuery();
            }
            for (var notice : db.unwrap(PGConnection.class).getNotifications(60_000)) show(notice.getName(), notice.getParameter());
            run(db, "UNLISTEN *");
        });

        step("timeouts, settings and a temporary table of a session", () -> {
            try (var own = connect("options=-c%20statement_timeout=3s&ApplicationName=own"); var statement = own.createStatement()) {
                fails(() -> run(own, "SELECT pg_sleep(60)"));
                run(own, "SET statement_timeout = 0");
                // In a transaction: it waits at the server, not for a backend.
                own.setAutoCommit(false);
                run(own, "SELECT 1");
                statement.setQueryTimeout(1);
                fails(() -> statement.execute("SELECT pg_sleep(60)"));
                own.rollback();
                own.setAutoCommit(true);
                run(own, "SET TIME ZONE 'Asia/Tokyo'; CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 4) n");
                show(value(own, "SELECT sum(n) FROM mine"), value(own, "SELECT '2024-01-01 00:00:00+00'::timestamptz::text"), value(own, "SHOW application_name"));
            }
            show(value(db, "SHOW statement_timeout"));
        });

        step("a table grows under prepared statements", () -> {
            run(db, "CREATE TABLE grows AS SELECT 1 AS a");
            for (var options : List.of("autosave=never", "autosave=conservative")) {
                try (var own = connect(options); var all = own.prepareStatement("SELECT * FROM grows")) {
                    own.setAutoCommit(false);
                    for (int n = 0; n < 8; n++) all.executeQuery();
                    own.commit();
                    run(db, "ALTER TABLE grows ADD " + options.replace("autosave=", "") + " int DEFAULT 2");
                    for (int n = 0; n < 2; n++) {
                        try {
                            show(all.executeQuery().getMetaData().getColumnCount());
                        } catch (SQLException error) {
                            show("error", error.getSQLState());
                        }
                        own.rollback();
                    }
                }
            }
        });

        step("functions, the catalog, and errors", () -> {
            run(db, "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 2'");
            show(value(db, "SELECT twice(21)"));
            var columns = new ArrayList<String>();
            for (var rows = db.getMetaData().getColumns(null, SCHEMA, "items", null); rows.next(); ) columns.add(rows.getString("COLUMN_NAME"));
            show(columns);
            for (var wrong : List.of("SELECT * FROM missing", "INSERT INTO items (name) VALUES ('outer')", "SELECT 1/0")) fails(() -> run(db, wrong));
            show(value(db, "SELECT 1"));
        });

        step("disconnect and connect again", () -> {
            db.close();
            try (var again = connect("")) {
                show(value(again, "SELECT current_schema()"), again.isValid(60));
            }
        });
    }
}
