// The console through pgjdbc, at PGHOST and PGPORT: prints `ok name` per check, fails on the first that does not hold.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import org.postgresql.util.PSQLException;

public class ConsoleWithJdbc {
    static Connection connect(String options) throws SQLException {
        var at = System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        var url = "jdbc:postgresql://" + at + "?sslmode=disable&" + options;
        return DriverManager.getConnection(url, System.getenv("PGUSER"), System.getenv("PGPASSWORD"));
    }

    static void hold(boolean holds, Object what) {
        if (!holds) throw new AssertionError(what);
    }

    static int usedClients(ResultSet rows) throws SQLException {
        while (rows.next()) {
            if (rows.getString("list").equals("used_clients")) return rows.getInt("items");
        }
        throw new AssertionError("no row");
    }

    /** Statements, in each of pgjdbc's query modes; with `prepareThreshold=1` they are named, and numbers come in binary. */
    static void tables() throws SQLException {
        for (var options : List.of("preferQueryMode=simple", "preferQueryMode=extended", "preferQueryMode=extendedCacheEverything",
                "prepareThreshold=1", "prepareThreshold=-1&binaryTransfer=true")) {
            try (var connection = connect(options); var statement = connection.createStatement();
                    var prepared = connection.prepareStatement("SHOW LISTS")) {
                for (int n = 0; n < 10; n++) {
                    hold(usedClients(statement.executeQuery("SHOW LISTS;")) == 1, options);
                    hold(usedClients(prepared.executeQuery()) == 1, options);
                }
                var pools = statement.executeQuery("SHOW POOLS");
                hold(pools.next() && pools.getString("database").equals("pgbouncer") && pools.getInt("cl_active") == 1, options);
                var stats = statement.executeQuery("SHOW STATS");
                hold(stats.next() && stats.getLong("total_query_count") == 0, options);
            }
            System.out.println("ok tables with " + options);
        }
    }

    /** A transaction and a fetch size: rows come through a portal, some at a time. */
    static void portions() throws SQLException {
        try (var connection = connect(""); var statement = connection.createStatement()) {
            connection.setAutoCommit(false);
            statement.setFetchSize(2);
            int rows = 0;
            for (var help = statement.executeQuery("SHOW HELP"); help.next(); ) rows++;
            hold(rows > 20, rows);
            connection.commit();
        }
        System.out.println("ok rows in portions");
    }

    static void several() throws SQLException {
        try (var connection = connect(""); var statement = connection.createStatement()) {
            hold(statement.execute("SHOW STATE; SHOW VERSION; RECONNECT"), "a table");
            var first = new ArrayList<String>();
            for (var rows = statement.getResultSet(); rows.next(); ) first.add(rows.getString(1));
            hold(first.equals(List.of("active", "paused", "suspended")), first);
            hold(statement.getMoreResults() && statement.getResultSet().next(), "the version");
            hold(!statement.getMoreResults() && statement.getUpdateCount() == 0, "no rows");
        }
        System.out.println("ok several commands in one text");
    }

    static void errors() throws SQLException {
        for (var options : List.of("preferQueryMode=simple", "prepareThreshold=1")) {
            try (var connection = connect(options); var statement = connection.createStatement()) {
                for (var expected : List.of(List.of("SHOW POOL", "42601", "Did you mean SHOW POOLS?"),
                        List.of("SUSPEND", "0A000", "PAUSE"), List.of("SET default_pool_size = 5", "0A000", "pool.size"),
                        List.of("PAUSE nothing", "3D000", "SHOW DATABASES"))) {
                    try {
                        statement.execute(expected.get(0));
                        throw new AssertionError(expected);
                    } catch (PSQLException told) {
                        hold(told.getSQLState().equals(expected.get(1)), told);
                        hold(told.getServerErrorMessage().getHint().contains(expected.get(2)), told);
                    }
                }
                hold(connection.isValid(10) && statement.executeQuery("SHOW STATE").next(), "it lives on");
            }
        }
        System.out.println("ok errors say what to do, and the connection lives on");
    }

    /** What pools of connections and tools ask a connection for. */
    static void habits() throws SQLException {
        try (var connection = connect("ApplicationName=a+tool&targetServerType=primary")) {
            hold(connection.getTransactionIsolation() == Connection.TRANSACTION_READ_COMMITTED, "isolation");
            hold(connection.getMetaData().getDatabaseMajorVersion() >= 15, connection.getMetaData().getDatabaseProductVersion());
            hold(connection.getCatalog().equals("pgweir"), connection.getCatalog());
            connection.setReadOnly(true);
            connection.setAutoCommit(false);
            hold(connection.createStatement().executeQuery("SELECT 1").next(), "1");
            connection.rollback();
        }
        System.out.println("ok what pools of connections ask");
    }

    public static void main(String[] arguments) throws SQLException {
        tables();
        portions();
        several();
        errors();
        habits();
    }
}
