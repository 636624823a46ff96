// lib/pq under database/sql: its pool, prepared statements, COPY, a listener that reconnects.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/ioutil"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
)

var (
	ctx    = context.Background()
	url    = os.Getenv("DATABASE_URL") + "&sslmode=disable"
	schema = os.Getenv("SCHEMA")
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func step(title string, act func()) {
	fmt.Println("==", title)
	act()
}

func fails(err error) {
	var said *pq.Error
	if !errors.As(err, &said) {
		panic(fmt.Sprint("an error of Postgres was expected: ", err))
	}
	fmt.Println("error", said.Code, said.Severity, said.Message)
}

type querier interface {
	QueryRowContext(context.Context, string, ...interface{}) *sql.Row
	ExecContext(context.Context, string, ...interface{}) (sql.Result, error)
}

func value(db querier, query string, args ...interface{}) (got string) {
	must(db.QueryRowContext(ctx, query, args...).Scan(&got))
	return got
}

func run(db querier, query string, args ...interface{}) {
	_, err := db.ExecContext(ctx, query, args...)
	must(err)
}

func version() string {
	status, err := ioutil.ReadFile("/var/lib/dpkg/status")
	must(err)
	_, rest, _ := strings.Cut(string(status), "Package: golang-github-lib-pq-dev\n")
	_, rest, _ = strings.Cut(rest, "\nVersion: ")
	found, _, _ := strings.Cut(rest, "-")
	return found
}

func main() {
	fmt.Println("lib/pq", version())
	db, err := sql.Open("postgres", url)
	must(err)
	db.SetMaxOpenConns(4)

	step("INSERT … RETURNING, arrays, bytes and times", func() {
		run(db, "CREATE TABLE items (id bigserial PRIMARY KEY, name text UNIQUE, tags text[], raw bytea, price numeric DEFAULT 0, at timestamptz)")
		at := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
		id := value(db, "INSERT INTO items (name, tags, raw, at) VALUES ($1, $2, $3, $4) RETURNING id", "one", pq.Array([]string{"a", "b,c"}), []byte{0, 255}, at)
		var tags []string
		var raw []byte
		var got time.Time
		must(db.QueryRow("SELECT tags, raw, at FROM items WHERE id = $1", id).Scan(pq.Array(&tags), &raw, &got))
		fmt.Println(id, tags, raw, got.Equal(at))
	})

	step("prepared statements on all connections of the pool", func() {
		add, err := db.Prepare("SELECT $1::int + 1")
		must(err)
		var wait sync.WaitGroup
		sums := make([]int, 40)
		for n := range sums {
			wait.Add(1)
			go func(n int) {
				defer wait.Done()
				must(add.QueryRow(n).Scan(&sums[n]))
			}(n)
		}
		wait.Wait()
		must(add.Close())
		fmt.Println(sums)
	})

	step("binary parameters", func() {
		binary, err := sql.Open("postgres", url+"&binary_parameters=yes")
		must(err)
		for n := 0; n < 5; n++ {
			fmt.Println(value(binary, "SELECT $1::bytea", []byte{byte(n)}) == string([]byte{byte(n)}), value(binary, "SELECT $1::int * 2", n))
		}
		must(binary.Close())
	})

	step("transactions, savepoints, and an error in one", func() {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
		must(err)
		run(tx, "INSERT INTO items (name) VALUES ('outer')")
		run(tx, "SAVEPOINT s")
		_, err = tx.Exec("INSERT INTO items (name) VALUES ('outer')")
		fails(err)
		_, err = tx.Exec("SELECT 1")
		fails(err)
		run(tx, "ROLLBACK TO SAVEPOINT s")
		fmt.Println(value(tx, "SHOW transaction_isolation"))
		must(tx.Commit())
		tx, err = db.Begin()
		must(err)
		run(tx, "DELETE FROM items")
		must(tx.Rollback())
		fmt.Println(value(db, "SELECT count(*) FROM items"))
	})

	step("many transactions on one row", func() {
		var wait sync.WaitGroup
		for n := 0; n < 20; n++ {
			wait.Add(1)
			go func(n int) {
				defer wait.Done()
				tx, err := db.Begin()
				must(err)
				run(tx, "UPDATE items SET price = price + $1 WHERE name = 'one'", n)
				must(tx.Commit())
			}(n)
		}
		wait.Wait()
		fmt.Println(value(db, "SELECT price FROM items WHERE name = 'one'"))
	})

	step("COPY, and one that fails", func() {
		run(db, "CREATE TABLE copied (a int, b text)")
		for _, first := range []interface{}{0, "no number"} {
			tx, err := db.Begin()
			must(err)
			put, err := tx.Prepare(pq.CopyIn("copied", "a", "b"))
			must(err)
			_, err = put.Exec(first, "first")
			must(err)
			for n := 1; n < 5000; n++ {
				if _, err = put.Exec(n, fmt.Sprint("row ", n)); err != nil {
					break
				}
			}
			if err == nil {
				_, err = put.Exec()
			}
			if err != nil {
				fails(err)
				// Until it is closed another goroutine reads what a ROLLBACK would wait for.
				put.Close()
				must(tx.Rollback())
				continue
			}
			must(put.Close())
			must(tx.Commit())
		}
		fmt.Println(value(db, "SELECT count(*) FROM copied"))
	})

	step("its listener", func() {
		listener := pq.NewListener(url, time.Second, time.Minute, nil)
		must(listener.Listen(schema + " news"))
		run(db, "SELECT pg_notify($1, $2)", schema+" news", "hello")
		notice := <-listener.Notify
		for notice == nil {
			notice = <-listener.Notify
		}
		fmt.Println(notice.Channel, notice.Extra)
		must(listener.Ping())
		must(listener.Unlisten(schema + " news"))
		must(listener.Close())
	})

	step("a deadline of the context, and one connection's settings", func() {
		soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		hasty, err := sql.Open("postgres", url)
		must(err)
		_, err = hasty.ExecContext(soon, "SELECT pg_sleep(60)")
		fmt.Println(err != nil)
		hasty.Close()
		conn, err := db.Conn(ctx)
		must(err)
		run(conn, "SET statement_timeout = '3s'")
		_, err = conn.ExecContext(ctx, "SELECT pg_sleep(60)")
		fails(err)
		run(conn, "SET TIME ZONE 'Asia/Tokyo'")
		run(conn, "CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 4) n")
		fmt.Println(value(conn, "SELECT sum(n) FROM mine"), value(conn, "SELECT '2024-01-01 00:00:00+00'::timestamptz::text"), value(conn, "SHOW statement_timeout"))
		run(conn, "DROP TABLE mine")
		run(conn, "RESET ALL")
		must(conn.Close())
		fmt.Println(value(db, "SHOW statement_timeout"), value(db, "SELECT current_schema()"))
	})

	step("several results of one text", func() {
		rows, err := db.Query("SELECT 1; SELECT 'two'; SELECT 3 WHERE false")
		must(err)
		for more := true; more; more = rows.NextResultSet() {
			for rows.Next() {
				var got string
				must(rows.Scan(&got))
				fmt.Println(got)
			}
		}
		must(rows.Close())
	})

	step("errors, and the pool goes on", func() {
		for _, wrong := range []string{"INSERT INTO items (name) VALUES ('one')", "SELECT * FROM missing", "SELECT 1 / 0"} {
			_, err := db.Exec(wrong)
			fails(err)
		}
		fmt.Println(value(db, "SELECT 1"))
	})

	step("disconnect and connect again", func() {
		db.SetMaxIdleConns(0)
		for n := 0; n < 5; n++ {
			fmt.Println(value(db, "SELECT current_schema()"))
		}
		must(db.Close())
	})
}
