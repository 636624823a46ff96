// libpqxx: prepared statements, streams, cursors, pipelines, subtransactions, robust transactions, notifications.
#include <iostream>
#include <pqxx/pqxx>
#include <string>
#include <thread>
#include <vector>

static const std::string schema = std::getenv("SCHEMA");

template <typename Act> void step(const char *title, Act act) {
    std::cout << "== " << title << std::endl;
    act();
}

template <typename Act> void fails(Act act) {
    try {
        act();
    } catch (const pqxx::sql_error &error) {
        const std::string text = error.what();
        std::cout << "error " << error.sqlstate() << " " << text.substr(0, text.find('\n')) << std::endl;
        return;
    }
    throw std::logic_error("an error was expected");
}

struct Heard : pqxx::notification_receiver {
    std::vector<std::string> payloads;
    using pqxx::notification_receiver::notification_receiver;
    void operator()(const std::string &payload, int) override { payloads.push_back(payload); }
};

int main() {
    std::cout << "libpqxx " << PQXX_VERSION << std::endl;
    pqxx::connection db;

    step("RETURNING, parameters and bytes", [&] {
        pqxx::work work(db);
        work.exec0("CREATE TABLE items (id serial PRIMARY KEY, name text UNIQUE, raw bytea, price numeric DEFAULT 0)");
        const std::string raw("\0\x01\xff", 3);
        auto row = work.exec_params1("INSERT INTO items (name, raw) VALUES ($1, $2) RETURNING id, name, raw", "it's", pqxx::binarystring(raw));
        std::cout << row[0].as<int>() << " " << row[1].c_str() << " " << (pqxx::binarystring(row[2]).str() == raw) << std::endl;
        work.commit();
    });

    step("prepared statements over many transactions", [&] {
        db.prepare("add", "SELECT $1::int + $2::int");
        db.prepare("count", "SELECT count(*) FROM items WHERE name <> $1");
        for (int n = 0; n < 20; n++) {
            pqxx::work work(db);
            std::cout << work.exec_prepared1("add", n, 1)[0].as<int>() << " ";
            work.exec_prepared1("count", "x");
            work.commit();
        }
        pqxx::nontransaction plain(db);
        std::cout << plain.exec_prepared1("add", 40, 2)[0].as<int>() << std::endl;
    });

    step("streams to and from a table", [&] {
        pqxx::work work(db);
        work.exec0("CREATE TABLE copied (a int, b text)");
        pqxx::stream_to in(work, "copied", std::vector<std::string>{"a", "b"});
        for (int n = 0; n < 10000; n++) in << std::make_tuple(n, "row\t" + std::to_string(n));
        in.complete();
        pqxx::stream_from out(work, "copied");
        std::tuple<int, std::string> row;
        long sum = 0;
        while (out >> row) sum += std::get<0>(row);
        out.complete();
        work.commit();
        std::cout << sum << std::endl;
    });

    step("cursors", [&] {
        pqxx::work work(db);
        pqxx::stateless_cursor<pqxx::cursor_base::read_only, pqxx::cursor_base::owned> cursor(work, "SELECT a FROM copied ORDER BY a", "rows", false);
        std::cout << cursor.size() << " " << cursor.retrieve(5000, 5002)[1][0].as<int>() << std::endl;
        pqxx::icursorstream stream(work, "SELECT a FROM copied ORDER BY a", "more", 1000);
        size_t rows = 0;
        for (pqxx::result part; stream >> part;) rows += part.size();
        std::cout << rows << std::endl;
        work.commit();
    });

    step("subtransactions, and an error in one", [&] {
        pqxx::work work(db);
        work.exec0("INSERT INTO items (name) VALUES ('outer')");
        fails([&] {
            pqxx::subtransaction inner(work, "inner");
            inner.exec0("INSERT INTO items (name) VALUES ('inner')");
            inner.exec0("INSERT INTO items (name) VALUES ('outer')");
        });
        pqxx::subtransaction kept(work, "kept");
        kept.exec0("INSERT INTO items (name) VALUES ('kept')");
        kept.commit();
        work.commit();
        pqxx::read_transaction look(db);
        std::cout << look.exec1("SELECT string_agg(name, ' ' ORDER BY id) FROM items")[0].c_str() << std::endl;
        fails([&] { look.exec0("DELETE FROM items"); });
    });

    step("isolation levels, and a robust transaction", [&] {
        {
            pqxx::transaction<pqxx::serializable> work(db);
            std::cout << work.exec1("SHOW transaction_isolation")[0].c_str() << std::endl;
        }
        pqxx::robusttransaction<> work(db);
        work.exec0("INSERT INTO items (name) VALUES ('robust')");
        work.commit();
        pqxx::nontransaction plain(db);
        std::cout << plain.exec1("SELECT count(*) FROM items WHERE name = 'robust'")[0].as<int>() << std::endl;
    });

    step("a pipeline, also one that fails", [&] {
        {
            pqxx::work work(db);
            pqxx::pipeline pipeline(work);
            for (int n = 0; n < 30; n++) pipeline.insert("SELECT " + std::to_string(n));
            int sum = 0;
            while (!pipeline.empty()) sum += pipeline.retrieve().second[0][0].as<int>();
            std::cout << sum << std::endl;
            pipeline.insert("SELECT 1");
            auto wrong = pipeline.insert("SELECT 1/0");
            fails([&] { pipeline.retrieve(wrong); });
        }
        pqxx::nontransaction plain(db);
        std::cout << plain.exec1("SELECT 1")[0].as<int>() << std::endl;
    });

    step("connections in threads, on one row", [&] {
        std::vector<std::thread> threads;
        for (int n = 0; n < 8; n++) threads.emplace_back([n] {
            pqxx::connection own;
            for (int i = 0; i < 5; i++) pqxx::perform([&] {
                pqxx::work work(own);
                work.exec_params0("UPDATE items SET price = price + $1 WHERE name = 'outer'", n);
                work.commit();
            });
        });
        for (auto &thread : threads) thread.join();
        pqxx::nontransaction plain(db);
        std::cout << plain.exec1("SELECT price FROM items WHERE name = 'outer'")[0].c_str() << std::endl;
    });

    step("LISTEN and NOTIFY", [&] {
        Heard heard(db, schema + " news");
        {
            pqxx::connection other;
            pqxx::work work(other);
            work.exec_params("SELECT pg_notify($1, $2)", schema + " news", "hello");
            work.commit();
        }
        while (heard.payloads.empty()) db.await_notification(60, 0);
        std::cout << heard.payloads[0] << std::endl;
    });

    step("variables of the session, a timeout, a temporary table", [&] {
        {
            pqxx::connection own;
            own.set_variable("statement_timeout", "'3s'");
            fails([&] { pqxx::nontransaction(own).exec("SELECT pg_sleep(60)"); });
            own.set_variable("timezone", "'Asia/Tokyo'");
            pqxx::nontransaction plain(own);
            plain.exec0("CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 4) n");
            std::cout << plain.exec1("SELECT sum(n), '2024-01-01 00:00:00+00'::timestamptz::text FROM mine")[1].c_str() << std::endl;
        }
        // Only now: it kept a backend as long as its table was there.
        std::cout << db.get_variable("statement_timeout") << std::endl;
    });

    step("large objects", [&] {
        pqxx::work work(db);
        pqxx::largeobjectaccess big(work);
        big.write(std::string(10000, 'x') + "end");
        big.seek(10000, std::ios::beg);
        char buffer[4] = {};
        big.read(buffer, 3);
        std::cout << buffer << std::endl;
        big.remove(work);
        work.commit();
    });

    step("errors, disconnect and connect again", [&] {
        for (const char *wrong : {"SELECT * FROM missing", "INSERT INTO items (name) VALUES ('kept')", "SELEC"})
            fails([&] { pqxx::work(db).exec(wrong); });
        db.disconnect();
        pqxx::connection again;
        pqxx::nontransaction plain(again);
        std::cout << plain.exec1("SELECT current_schema()")[0].c_str() << std::endl;
    });
}
