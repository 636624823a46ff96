//! Drivers of several languages, as their users use them, over three backends. The programs in `tests/drivers` print a
//! line per check; `scripts/drivers` installs what they import.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use futures_util::future::{join_all, try_join_all};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio_postgres::AsyncMessage;

use crate::support::{Endpoint, Postgres, hold_row, on_both_with, output_of, proxy, root, soon};

/// Installs what the programs import, once.
pub(crate) fn install() {
    static INSTALLED: LazyLock<String> = LazyLock::new(|| output_of(Command::new(root().join("scripts/drivers"))));
    LazyLock::force(&INSTALLED);
}

/// The programs here that are on `docs/PROGRAMS.md`.
pub(crate) const FILES: &[&str] = &[
    "python/with_psycopg.py",
    "python/with_asyncpg.py",
    "node/with_pg.js",
    "python/listen_with_psycopg.py",
    "python/listen_with_asyncpg.py",
    "node/listen_with_pg.js",
    "node/jobs_with_graphile_worker.js",
    "python/jobs_with_procrastinate.py",
];

/// Runs a driver's program, which holds its checks itself, over so many backends. `name` is on `docs/PROGRAMS.md`, with
/// the pinned version of `package`.
async fn drive(backends: u32, name: &str, package: &str, file: &str) {
    install();
    let said = Mutex::new(String::new());
    on_both_with(proxy().pool_size(backends), async |at: &Endpoint| {
        let checks = at.run("app", program(file)).await;
        print!("{checks}");
        *said.lock().expect("one at a time") = checks;
    })
    .await;
    let said = said.into_inner().expect("one at a time").replace('_', " ");
    let steps: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    hold_row(name, &pinned(package), file, &steps);
}

/// The version in the pins.
fn pinned(package: &str) -> String {
    let read = |file: &str| fs::read_to_string(root().join("tests/drivers").join(file)).expect("the pins");
    let (python, node) = (read("python/requirements.txt"), read("node/package.json"));
    let of_python = python.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
    let of_node = node.lines().find_map(|line| line.trim().strip_prefix(&format!("\"{package}\": ")));
    let version = of_python.or(of_node).unwrap_or_else(|| panic!("{package} is not pinned"));
    version.trim_matches(['"', ',']).to_owned()
}

/// A program of `tests/drivers`, by the language that its directory names; what is to be compiled is.
pub(crate) fn program(file: &str) -> Command {
    let (language, name) = file.split_once('/').expect("a directory");
    let path = root().join("tests/drivers").join(file);
    let interpreted_by = |interpreter: &str| {
        let mut command = Command::new(interpreter);
        command.arg(&path);
        command
    };
    match language {
        "node" => node(name),
        "python" => python(name),
        "odbc" => interpreted_by(&root().join("target/tools/python/bin/python").to_string_lossy()),
        "shell" => interpreted_by("bash"),
        "perl" | "php" | "ruby" => interpreted_by(language),
        "cpp" | "go" | "java" => compiled(&path, language),
        _ => panic!("nothing runs {file}"),
    }
}

/// Compiles a program into `target/tools`, as its users do with what Debian packages.
fn compiled(path: &Path, language: &str) -> Command {
    const JAR: &str = "/usr/share/java/postgresql.jar";
    let tools = root().join("target/tools");
    let name = path.file_stem().expect("a file");
    let (binary, classes) = (tools.join(name), tools.join("classes"));
    // Several tests may ask for the same at once, and again in the next run.
    static COMPILING: Mutex<()> = Mutex::new(());
    let _compiling = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut compiler = match language {
        "cpp" => Command::new("g++"),
        "go" => Command::new("go"),
        _ => Command::new("javac"),
    };
    match language {
        "cpp" => compiler.args(["-std=c++17", "-w", "-o"]).arg(&binary).arg(path).args(["-lpqxx", "-lpq", "-pthread"]),
        "go" => {
            let cache = tools.join("go-cache");
            compiler.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOCACHE", cache);
            compiler.args(["build", "-o"]).arg(&binary).arg(path)
        }
        _ => compiler.args(["-cp", JAR, "-d"]).arg(&classes).arg(path),
    };
    let compiled = if language == "java" { classes.join(name).with_extension("class") } else { binary.clone() };
    let changed = |file: &Path| fs::metadata(file).and_then(|file| file.modified()).ok();
    if changed(&compiled) < changed(path) {
        output_of(compiler);
    }
    if language != "java" {
        return Command::new(binary);
    }
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
    java.arg(format!("{}:{JAR}", classes.display())).arg(name);
    java
}

pub(crate) fn node(program: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(root().join("tests/drivers/node").join(program));
    command
}

pub(crate) fn python(program: &str) -> Command {
    let mut command = Command::new(root().join("target/tools/python/bin/python"));
    command.arg(root().join("tests/drivers/python").join(program));
    command
}

#[tokio::test]
async fn psycopg() {
    drive(3, "psycopg", "psycopg[binary]", "python/with_psycopg.py").await;
}

#[tokio::test]
async fn asyncpg() {
    drive(3, "asyncpg", "asyncpg", "python/with_asyncpg.py").await;
}

#[tokio::test]
async fn drivers_are_held_to_what_their_role_may_override() {
    install();
    let lines = "[roles.app]\nstatement_timeout = \"40s\"\noverride = \"lower\"";
    let proxy = proxy().pool_size(2).toml(lines).start().await;
    print!("{}", proxy.run("app", python("with_override.py")).await);
}

#[tokio::test]
async fn node_postgres() {
    drive(3, "node-postgres", "pg", "node/with_pg.js").await;
}

/// One backend for listeners and writers alike: who listens holds none.
#[tokio::test]
async fn psycopg_listens() {
    drive(1, "psycopg, listening", "psycopg[binary]", "python/listen_with_psycopg.py").await;
}

#[tokio::test]
async fn asyncpg_listens() {
    drive(1, "asyncpg, listening", "asyncpg", "python/listen_with_asyncpg.py").await;
}

#[tokio::test]
async fn node_postgres_listens() {
    drive(1, "node-postgres, listening", "pg", "node/listen_with_pg.js").await;
}

/// Its workers, and procrastinate's, poll every ten minutes: a job that no notification announces comes too late by far
/// for the deadlines of the programs.
#[tokio::test]
async fn graphile_worker_runs_each_job_once_and_at_once() {
    drive(2, "graphile-worker", "graphile-worker", "node/jobs_with_graphile_worker.js").await;
}

#[tokio::test]
async fn procrastinate_runs_each_job_once_and_at_once() {
    drive(2, "procrastinate", "procrastinate", "python/jobs_with_procrastinate.py").await;
}

/// Once more when their functions are adopted: what they notify of is then no NOTIFY at the server any more.
#[tokio::test]
async fn adopted_job_queues_run_each_job_once_and_at_once() {
    install();
    for program in [|| node("jobs_with_graphile_worker.js"), || python("jobs_with_procrastinate.py")] {
        let proxy = proxy().pool_size(2).start().await;
        proxy.run("app", program()).await;
        let server = Postgres::shared().endpoint(&proxy.dbname);
        for step in [&[][..], &["--adopt"]] {
            let mut pgweir = Command::new(env!("CARGO_BIN_EXE_pgweir"));
            pgweir.arg("notify-sql").args(step);
            let script = tempfile::NamedTempFile::new().expect("a temporary file");
            fs::write(&script, output_of(pgweir)).expect("our own file");
            let mut psql = Command::new("psql");
            psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-f"]).arg(script.path());
            print!("{}", server.run("postgres", psql).await);
        }
        let intercepted = || proxy.metric("pgweir_notify_intercepted_total", &[]);
        let before = intercepted();
        print!("{}", proxy.run("app", program()).await);
        assert!(intercepted() - before >= 400.0, "{} of 400 jobs", intercepted() - before);
    }
}

#[tokio::test]
async fn tokio_postgres_listens() {
    on_both_with(proxy().pool_size(1), async |at: &Endpoint| {
        let (listener, mut heard) = at.connect_and_hear("app").await;
        let mut writer = at.connect("app").await;
        listener.batch_execute("LISTEN jobs").await.expect("it listens");
        let notify = writer.prepare("SELECT pg_notify('jobs', $1)").await.expect("a statement");
        for n in 0..20 {
            let transaction = writer.transaction().await.expect("BEGIN");
            transaction.query(&notify, &[&n.to_string()]).await.expect("it notifies");
            if n % 2 == 0 { transaction.commit().await } else { transaction.rollback().await }.expect("an end");
        }
        let many = (0..20).map(async |n: u32| writer.query(&notify, &[&format!("pipelined {n}")]).await);
        soon(try_join_all(many)).await.expect("20 answers in one pipeline");

        let whole = (0..20).step_by(2).map(|n| n.to_string());
        for payload in whole.chain((0..20).map(|n| format!("pipelined {n}"))) {
            let Some(AsyncMessage::Notification(notice)) = soon(heard.recv()).await else { panic!("no {payload}") };
            assert_eq!((notice.channel(), notice.payload()), ("jobs", &*payload));
        }
    })
    .await;
}

#[tokio::test]
async fn tokio_postgres_pipelines_prepared_statements_and_portals() {
    on_both_with(proxy().pool_size(3), async |at: &Endpoint| {
        let mut client = at.connect("app").await;
        let add = client.prepare("SELECT $1::int + $2::int").await.expect("a statement");
        let sums = (0..500).map(async |n: i32| client.query_one(&add, &[&n, &1]).await);
        let sums = soon(try_join_all(sums)).await.expect("500 answers in one pipeline");
        assert!(sums.iter().map(|row| row.get::<_, i32>(0)).eq(1..=500));

        let transaction = client.transaction().await.expect("BEGIN");
        let portal = transaction.bind("SELECT generate_series(1, 10)", &[]).await.expect("a portal");
        let (first, rest) = (transaction.query_portal(&portal, 4).await, transaction.query_portal(&portal, 0).await);
        assert_eq!((first.expect("4 rows").len(), rest.expect("6 rows").len()), (4, 6));
        transaction.rollback().await.expect("ROLLBACK");
        assert_eq!(client.query_one(&add, &[&40, &2]).await.expect("a row").get::<_, i32>(0), 42);
    })
    .await;
}

#[tokio::test]
async fn sqlx_over_a_pool_of_its_own() {
    on_both_with(proxy().pool_size(3), async |at: &Endpoint| {
        let pool = PgPoolOptions::new().max_connections(30).connect(&at.url("app")).await.expect("a pool");
        pool.execute("CREATE TABLE t (a int)").await.expect("a table");
        let inserts = join_all((0..200_i32).map(async |n| {
            let mut transaction = pool.begin().await?;
            sqlx::query("INSERT INTO t VALUES ($1)").bind(n).execute(&mut *transaction).await?;
            sqlx::query("INSERT INTO t VALUES ($1 * 1000)").bind(n).execute(&mut *transaction).await?;
            if n % 2 == 0 { transaction.commit().await } else { transaction.rollback().await }
        }));
        assert!(soon(inserts).await.iter().all(Result::is_ok));
        let row = sqlx::query("SELECT count(*), sum(a) FROM t").fetch_one(&pool).await.expect("a row");
        assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (200, (0..200).step_by(2).sum::<i64>() * 1001));
        let failed = sqlx::query("SELECT 1 / $1").bind(0).execute(&pool).await.expect_err("a division by zero");
        assert_eq!(failed.as_database_error().and_then(|error| error.code()).as_deref(), Some("22012"));
        pool.close().await;

        let mut single = PgConnection::connect(&at.url("app")).await.expect("a login");
        let mut copy = single.copy_in_raw("COPY t FROM STDIN").await.expect("COPY IN");
        copy.send(&b"1\n2\n3\n"[..]).await.expect("it reads");
        assert_eq!(copy.finish().await.expect("rows"), 3);
        single.ping().await.expect("an answer");
        single.close().await.expect("a goodbye");
    })
    .await;
}
