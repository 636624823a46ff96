//! Several databases of one server: what is the matter with the server is asked once and told once, with the databases
//! that it concerns.

use serde_json::Value;

use crate::support::{Builder, Postgres, Proxy, eventually};
use crate::watchers::{opened, watched};

/// pgweir in front of `app` and two more databases of this server, all watched.
async fn three<'a>(postgres: &'a Postgres, keys: &str) -> (Builder<'a>, [String; 2]) {
    let more = [postgres.database().await, postgres.database().await];
    let section = |name: &String| format!("[databases.{name}]\nhost = \"127.0.0.1\"\nport = {}\n", postgres.port);
    let sections: String = more.iter().map(section).collect();
    (watched(postgres, keys).await.toml(&sections), more)
}

async fn all_watched(proxy: &Proxy) {
    eventually(async || {
        let rows = proxy.console("SHOW WATCH").await;
        rows.len() == 3 && rows.iter().all(|row| row["up"] == "1")
    })
    .await;
}

fn over(kind: &str) -> impl Fn(&Value) -> bool {
    move |fields| fields["kind"] == kind && !fields["lasted"].is_null()
}

fn count(proxy: &Proxy, is: impl Fn(&Value) -> bool) -> usize {
    proxy.records(is).len()
}

#[tokio::test]
async fn one_blocker_is_told_once_with_its_database_and_its_table() {
    let postgres = Postgres::private(&[]);
    let (builder, [second, third]) = three(&postgres, "blocked = \"1ms\"\nconvoy_waiters = 5").await;
    let proxy = builder.pool_size(30).start().await;
    all_watched(&proxy).await;
    // One of the three asks for all, and this is of a database that another one is connected to.
    for (place, database) in [&second, &third].into_iter().enumerate() {
        let holder = postgres.admin(database).await;
        holder.batch_execute("CREATE TABLE counters (); GRANT ALL ON counters TO PUBLIC").await.unwrap();
        holder.batch_execute("BEGIN; LOCK TABLE counters").await.unwrap();
        let mut waiters = Vec::new();
        for _ in 0..12 {
            let client = proxy.database(database).connect("app").await;
            waiters.push(tokio::spawn(async move { client.batch_execute("SELECT FROM counters").await }));
        }
        let of = |fields: &Value| fields["database"] == database.as_str();
        let blocker = proxy.told(|fields| opened("blocker")(fields) && of(fields)).await;
        let what = blocker["message"].as_str().unwrap();
        assert!(what.ends_with("most for relation public.counters"), "{blocker}");
        proxy.told(|fields| opened("convoy")(fields) && of(fields)).await;
        let rows = proxy.console("SHOW FINDINGS").await;
        let row = rows.iter().find(|row| row["kind"] == "blocker").expect("it is open");
        assert_eq!(&row["database"], database);
        let rows = proxy.console("SHOW WATCH").await;
        let findings = |name: &str| &rows.iter().find(|row| row["database"] == name).expect("watched")["findings"];
        assert!(findings(database) != "0" && findings("app") == "0", "{rows:?}");

        holder.batch_execute("COMMIT").await.unwrap();
        for waiter in waiters {
            waiter.await.unwrap().expect("nobody was ended");
        }
        proxy.told(|fields| over("blocker")(fields) && of(fields)).await;
        proxy.told(|fields| over("convoy")(fields) && of(fields)).await;
        for kind in ["blocker", "convoy"] {
            assert_eq!((count(&proxy, opened(kind)), count(&proxy, over(kind))), (place + 1, place + 1), "{kind}");
        }
    }
    let sum = |name, labels: &[&str]| proxy.metric(name, labels);
    assert_eq!(sum("pgweir_watch_findings_total", &["kind=\"blocker\""]), 2.0);
    assert_eq!(sum("pgweir_watch_state", &[]), 1.0, "one server has one state");
    assert_eq!(sum("pgweir_watch_server", &[]), 3.0);
    assert_eq!(proxy.console("SHOW CONVOYS").await.len(), 1);
}

#[tokio::test]
async fn a_server_that_is_away_is_told_once_with_all_its_databases() {
    let mut postgres = Postgres::private(&[]);
    let (builder, [second, third]) = three(&postgres, "").await;
    let proxy = builder.start().await;
    all_watched(&proxy).await;
    let all = format!("app, {second}, {third}");
    postgres.stop();
    let blind = proxy.told(opened("blind")).await;
    assert_eq!(blind["database"], all.as_str());
    eventually(async || proxy.console("SHOW WATCH").await.iter().all(|row| row["up"] == "0")).await;
    postgres.start();
    let again = proxy.told(over("blind")).await;
    assert_eq!(again["database"], all.as_str());
    all_watched(&proxy).await;
    assert_eq!((count(&proxy, opened("blind")), count(&proxy, over("blind"))), (1, 1));
    assert_eq!(count(&proxy, |fields| fields["message"] == "the server is not watched"), 1);
}

#[tokio::test]
async fn a_watch_that_loses_its_database_leaves_the_server_to_another() {
    let postgres = Postgres::private(&[]);
    let (builder, [second, _]) = three(&postgres, "blocked = \"1ms\"").await;
    let proxy = builder.start().await;
    all_watched(&proxy).await;
    let admin = postgres.admin("postgres").await;
    let locks = postgres.admin(&second).await;
    locks.batch_execute("CREATE TABLE t ()").await.unwrap();
    locks.batch_execute("BEGIN; LOCK TABLE t").await.unwrap();
    let waiter = postgres.admin(&second).await;
    let waiter = tokio::spawn(async move { waiter.batch_execute("SELECT FROM t").await });
    proxy.told(opened("blocker")).await;

    // Whichever asks for the server, it is one of these in the end.
    for database in [proxy.dbname.as_str(), &second] {
        let sql = format!(
            "ALTER DATABASE {database} ALLOW_CONNECTIONS false; SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = '{database}' AND application_name = 'pgweir watch'"
        );
        admin.batch_execute(&sql).await.unwrap();
    }
    eventually(async || {
        let rows = proxy.console("SHOW WATCH").await;
        rows.iter().filter(|row| row["up"] == "1").count() == 1
    })
    .await;
    assert_eq!(proxy.console("SHOW CONVOYS").await.len(), 1);
    locks.batch_execute("COMMIT").await.unwrap();
    waiter.await.unwrap().expect("it was not ended");
    proxy.told(over("blocker")).await;
    assert_eq!((count(&proxy, opened("blocker")), count(&proxy, opened("blind"))), (1, 0));
}
