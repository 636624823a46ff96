//! Who may look in the console, who may act there, and what becomes of it when the file changes.

use tokio_postgres::error::SqlState;

use crate::support::{Builder, Proxy, password_of, proxy, tags};

/// A proxy whose role `stats` may look.
fn looked_at() -> Builder<'static> {
    let role = format!("[roles.stats]\npassword = \"{}\"\n", password_of("stats"));
    proxy().toml(&format!("{role}[admin]\nstats_roles = [\"stats\"]"))
}

/// What HELP lists, with names in the place of what stands for them.
async fn commands(proxy: &Proxy) -> Vec<String> {
    let help = proxy.console("SHOW HELP").await;
    let named = |row: &std::collections::BTreeMap<String, String>| {
        let words = row["command"].split(' ').filter(|word| !word.starts_with('[') && !word.ends_with(']'));
        let words = words.map(|word| match word {
            "db" | "role" => "app",
            "id" | "n" => "1",
            "digest" => "0123456789abcdef",
            word => word,
        });
        words.collect::<Vec<_>>().join(" ")
    };
    help.iter().map(named).collect()
}

// Every command is checked, also those on a single client: PgBouncer's KILL_CLIENT lacked the check (CVE-2026-6667).
#[tokio::test]
async fn who_may_look_is_shown_everything_and_refused_all_else() {
    let proxy = looked_at().start().await;
    let mut wire = proxy.database("pgweir").wire("stats").await;
    for command in commands(&proxy).await {
        let frames = wire.query(&command).await;
        if command.starts_with("SHOW ") {
            assert!(tags(&frames).starts_with("T ") && tags(&frames).ends_with("C Z"), "{command}: {}", tags(&frames));
            continue;
        }
        assert_eq!(tags(&frames), "E Z", "{command}");
        assert_eq!(frames[0].sqlstate(), "42501", "{command}");
        assert!(frames[0].fields()[&'H'].contains("admin.roles"), "{command}");
    }
    for sql in ["SET application_name = 'scrape'", "BEGIN", "SELECT 1", "COMMIT", "DISCARD ALL"] {
        assert!(tags(&wire.query(sql).await).ends_with("C Z"), "{sql}");
    }
    let prepared = proxy.database("pgweir").connect("stats").await;
    let refused = prepared.execute("DISABLE app", &[]).await.expect_err("over the extended protocol, too");
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    proxy.connect("app").await.batch_execute("SELECT 1").await.expect("nothing has happened");
}

#[tokio::test]
async fn a_reload_gives_and_takes_rights_of_consoles_that_are_open() {
    let proxy = looked_at().start().await;
    let console = proxy.database("pgweir").connect("stats").await;
    let acts = async || console.batch_execute("RECONNECT app").await.map_err(|error| error.code().cloned());
    assert_eq!(acts().await, Err(Some(SqlState::INSUFFICIENT_PRIVILEGE)));
    proxy.reload("[admin]\nroles = [\"ops\", \"stats\"]").await;
    assert_eq!(acts().await, Ok(()));
    proxy.reload("[admin]\nroles = [\"ops\"]\nstats_roles = []").await;
    let looked = console.simple_query("SHOW POOLS").await.expect_err("it may nothing any more");
    assert_eq!(looked.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    let again = proxy.database("pgweir").try_connect("stats").await.map(drop).expect_err("nor come in");
    assert_eq!(again.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION));
}
