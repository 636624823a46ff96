//! Configuration files, valid and invalid, and the rules between their keys.
//!
//! `tests/config/valid/x.toml` shows as `x.expected` (the settings in force), `tests/config/invalid/x.toml` as its
//! mistakes. `UPDATE_EXPECTED=1 cargo test --test config` writes the `.expected` files anew.

use std::fmt::Write;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use pgweir::config::{
    self, Access, Admission, AuthQuery, BackendTls, Config, Listen, Mistakes, Notify, PasswordSource, PoolKeys,
    RoleAdmission, Watch,
};
use proptest::prelude::*;

// ## Files

#[test]
fn valid_files_are_in_force_as_expected() {
    for file in files("valid") {
        let config = read(&file).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        compare(&file, &shown(&config));
    }
}

#[test]
fn invalid_files_show_every_mistake() {
    for file in files("invalid") {
        let mistakes = read(&file).expect_err("an invalid file");
        compare(&file, &format!("{mistakes}\n"));
    }
}

#[test]
fn secrets_are_never_repeated() {
    for file in files("invalid").chain(files("valid")) {
        let text = match read(&file) {
            Ok(config) => format!("{config:?} {}", shown(&config)),
            Err(mistakes) => format!("{mistakes} {mistakes:?}"),
        };
        for secret in ["never", "s3cret", "found by lookup", "from the environment"] {
            assert!(!text.contains(secret), "{}: {text}", file.display());
        }
    }
}

#[test]
fn secrets_are_read_from_where_they_are() {
    let config = read(Path::new("tests/config/valid/everything.toml")).expect("valid");
    let web = config.role("web").expect("web");
    assert_eq!(
        web.backend_password.as_ref().and_then(PasswordSource::known).expect("set").expose(),
        "from the environment"
    );
    let auth_query = config.databases["app"].auth_query.as_ref().expect("set");
    assert_eq!(auth_query.password.as_ref().and_then(PasswordSource::known).expect("set").expose(), "found by lookup");
    assert!(config.files.contains(&PathBuf::from("tests/config/valid/lookup.password")));
}

#[test]
fn commands_of_passwords_are_read_and_not_run() {
    let config = config::load(Path::new("tests/config/valid/commands.toml")).expect("valid");
    let commands: Vec<_> = config::password_commands(&config).collect();
    let shown: Vec<String> = commands.iter().map(|command| format!("{}: {command:?}", command.key())).collect();
    assert_eq!(shown.len(), 7, "{shown:#?}");
    assert!(shown[0].starts_with("databases.app.auth_query.password: command \"false\", refresh 10m"), "{shown:#?}");
    let Some(PasswordSource::Command(own)) = &config.databases["app"].password else { panic!("a command") };
    assert_eq!(own.program(), ("/usr/bin/aws", &["rds", "generate-db-auth-token", "never", ""].map(String::from)[..]));
    assert_eq!((own.refresh(), own.timeout()), (Duration::from_secs(120), Duration::from_millis(1500)));
    // The same command at another place is the same.
    let roles = config.role("web").and_then(|role| role.backend_password.clone());
    assert_eq!(roles, Some(PasswordSource::Command(own.clone())));
}

#[test]
fn missing_file_is_a_mistake() {
    let mistakes = config::load(Path::new("tests/config/none.toml")).expect_err("missing");
    assert_eq!(mistakes.to_string(), "tests/config/none.toml: cannot be read: No such file or directory (os error 2)");
}

// ## The shipped file

#[test]
fn shipped_file_states_the_defaults() {
    let shipped = config::load(Path::new("proxy.toml")).expect("the shipped file is valid");
    let smallest = parse(
        r#"
        [databases."*"]
        host = "127.0.0.1"
        [roles."*"]
        auth = "passthrough"
        "#,
    )
    .expect("valid");
    assert_eq!(shipped, smallest);
    assert_eq!(shipped.listen, Listen::default());
    assert_eq!(shipped.databases["*"].pool, PoolKeys::default());
    assert_eq!(shipped.databases["*"].tls, BackendTls::default());
    assert_eq!(shipped.admission, Admission::default());
    assert_eq!(shipped.notify, Notify::default());
    assert_eq!(shipped.watch, Watch::default());
    assert_eq!(shipped.roles["*"].limits.admission, RoleAdmission::default());
}

#[test]
fn shipped_file_writes_every_default_down() {
    let shipped = fs::read_to_string("proxy.toml").expect("readable");
    let written: Vec<&str> = shipped.lines().filter_map(key_of).collect();
    let config = config::load(Path::new("proxy.toml")).expect("valid");
    for path in config::entries(&config).keys() {
        let key = path.trim_start_matches("databases.\"*\".").trim_start_matches("roles.\"*\".");
        let key = key
            .split('.')
            .find(|part| {
                ![
                    "listen",
                    "admin",
                    "pool",
                    "admission",
                    "notify",
                    "watch",
                    "fleet",
                    "statements",
                    "recorder",
                    "metrics",
                ]
                .contains(part)
            })
            .expect("a key");
        assert!(written.contains(&key), "{path} is not written in proxy.toml");
    }
}

#[test]
fn examples_of_the_shipped_file_are_valid() {
    let dir = tempfile::tempdir().expect("a directory");
    for file in ["server.crt", "server.key", "ca.crt", "pgweir.password", "owner.password", "admin.token", "salt.key"] {
        fs::write(dir.path().join(file), "a placeholder, long enough").expect("written");
    }
    let shipped = fs::read_to_string("proxy.toml").expect("readable");
    let mut uncommented = String::new();
    for line in shipped.lines() {
        let line = match line.strip_prefix("# ") {
            Some(example) if key_of(example).is_some() || example.starts_with("[[") => example,
            _ => line,
        };
        // The one contradiction: who is passed through logs in as itself.
        let line = line.replace("auth = \"passthrough\"", "auth = \"trust\"");
        writeln!(uncommented, "{line}").expect("a string takes all");
    }
    let path = dir.path().join("proxy.toml");
    let config = config::parse(&uncommented, &path, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(config.listen.workers, None);
    let AuthQuery { query, .. } = config.databases["*"].auth_query.as_ref().expect("an example");
    let unset = parse(&both("auth_query = { role = \"r\" }", "auth = \"trust\"")).expect("valid");
    assert_eq!(*query, unset.databases["app"].auth_query.as_ref().expect("set").query);
}

// ## Rules between keys

#[test]
fn client_tls_needs_certificate_and_key() {
    for mode in ["allow", "require"] {
        refused(
            &listening(&format!("tls = {{ mode = \"{mode}\" }}")),
            &[
                &format!("listen.tls.cert: is missing; mode \"{mode}\" needs it"),
                &format!("listen.tls.key: is missing; mode \"{mode}\" needs it"),
            ],
        );
    }
    accepted(&listening("tls = { mode = \"disable\" }"));
}

#[test]
fn verify_client_needs_a_client_ca() {
    refused(
        &listening(r#"tls = { mode = "verify-client", cert = "proxy.toml", key = "proxy.toml" }"#),
        &["listen.tls.client_ca: is missing; mode \"verify-client\" needs it"],
    );
}

#[test]
fn client_ca_without_verify_client_is_refused() {
    refused(
        &listening(r#"tls = { mode = "require", cert = "proxy.toml", key = "proxy.toml", client_ca = "proxy.toml" }"#),
        &["listen.tls.client_ca: is used by mode \"verify-client\" only"],
    );
}

#[test]
fn certificate_files_must_be_readable() {
    refused(
        &both(r#"tls = { mode = "verify-full", ca = "none.crt" }"#, "auth = \"trust\""),
        &["databases.app.tls.ca: cannot read none.crt: No such file or directory (os error 2)"],
    );
}

#[test]
fn backend_tls_needs_certificate_and_key_together() {
    refused(
        &both(r#"tls = { mode = "require", cert = "proxy.toml" }"#, "auth = \"trust\""),
        &["databases.app.tls.key: is missing; cert needs it"],
    );
}

#[test]
fn ca_that_nothing_checks_is_refused() {
    refused(
        &both(r#"tls = { mode = "require", ca = "proxy.toml" }"#, "auth = \"trust\""),
        &["databases.app.tls.ca: mode \"require\" checks no certificate; use \"verify-ca\" or \"verify-full\""],
    );
}

#[test]
fn certificate_login_needs_verify_client() {
    let role = "[databases.app]\nhost = \"h\"\n[roles.web]\nauth = \"certificate\"\n";
    refused(role, &["roles.web.auth: \"certificate\" needs listen.tls with mode = \"verify-client\""]);
    let tls = r#"tls = { mode = "verify-client", cert = "proxy.toml", key = "proxy.toml", client_ca = "proxy.toml" }"#;
    accepted(&format!("[listen]\n{tls}\n{role}"));
}

#[test]
fn passthrough_contradicts_another_login_towards_postgres() {
    let why = "auth \"passthrough\" logs in as the client itself; use another auth, or remove this";
    refused(
        &role("auth = \"passthrough\"\nlogin_as = \"app\"\nbackend_password = \"p\""),
        &[&format!("roles.web.login_as: {why}"), &format!("roles.web.backend_password: {why}")],
    );
}

#[test]
fn passthrough_of_the_star_contradicts_login_as_of_a_role() {
    refused(
        &format!("{}[roles.\"*\"]\nauth = \"passthrough\"\n", role("login_as = \"app\"")),
        &["roles.web.login_as: auth \"passthrough\" logs in as the client itself; use another auth, or remove this"],
    );
}

#[test]
fn password_login_needs_a_password() {
    for auth in ["password", "md5"] {
        refused(
            &role(&format!("auth = \"{auth}\"")),
            &[&format!("roles.web.password: is missing; auth \"{auth}\" needs it")],
        );
    }
}

#[test]
fn password_that_the_login_does_not_use_is_refused() {
    for auth in ["trust", "passthrough"] {
        refused(
            &role(&format!("auth = \"{auth}\"\npassword = \"p\"")),
            &[&format!("roles.web.password: auth \"{auth}\" does not use it; remove one of them")],
        );
    }
}

#[test]
fn role_needs_a_way_to_log_in() {
    refused(
        &role("size = 5"),
        &["roles.web: cannot log in: it needs a password, or auth = \"passthrough\", for example"],
    );
}

#[test]
fn password_replaces_the_login_of_the_star() {
    let config = parse(&format!("{}[roles.\"*\"]\nauth = \"passthrough\"\n", role("password = \"p\""))).expect("valid");
    assert!(matches!(config.roles["web"].auth, config::Auth::Password { md5: false, .. }));
}

#[test]
fn star_has_no_password() {
    let star = |keys| format!("[databases.app]\nhost = \"h\"\n[roles.\"*\"]\n{keys}\n");
    refused(
        &star("password = \"p\""),
        &[
            "roles.\"*\".password: one password would open every role; use auth \"passthrough\" or \"auth-query\", or name the roles",
        ],
    );
    refused(&star("auth = \"md5\""), &["roles.\"*\".auth: \"md5\" needs a password, and \"*\" cannot have one"]);
}

#[test]
fn stored_hash_must_suit_the_login() {
    let verifier = format!("SCRAM-SHA-256$4096:c2FsdA==${0}=:{0}=", "A".repeat(43));
    accepted(&role(&format!("password = \"{verifier}\"")));
    refused(
        &role(&format!("auth = \"md5\"\npassword = \"{verifier}\"")),
        &["roles.web.auth: \"md5\" cannot be checked against a SCRAM verifier; use \"password\""],
    );
    let md5 = format!("md5{}", "0".repeat(32));
    accepted(&role(&format!("auth = \"md5\"\npassword = \"{md5}\"")));
    refused(
        &role(&format!("password = \"{md5}\"")),
        &["roles.web.password: is an md5 hash, which only auth = \"md5\" can check"],
    );
}

#[test]
fn verifier_is_no_backend_password() {
    refused(
        &role("password = \"p\"\nbackend_password = \"SCRAM-SHA-256$4096:a$b:c\""),
        &["roles.web.backend_password: is a SCRAM verifier, which opens nothing; write the password itself"],
    );
}

#[test]
fn auth_query_login_needs_a_database_with_one() {
    refused(&role("auth = \"auth-query\""), &["roles.web.auth: \"auth-query\" needs an auth_query in a database"]);
    accepted(&both("auth_query = { role = \"lookup\" }", "auth = \"auth-query\""));
}

#[test]
fn auth_query_needs_role_and_parameter() {
    refused(
        &both("auth_query = { query = \"SELECT 1\" }", "auth = \"auth-query\""),
        &[
            "databases.app.auth_query.role: is missing",
            "databases.app.auth_query.query: has no $1, where the role's name goes",
        ],
    );
}

#[test]
fn names_of_the_console_are_no_databases() {
    for name in ["pgweir", "pgbouncer"] {
        refused(
            &format!("[databases.{name}]\nhost = \"h\"\n[roles.web]\npassword = \"p\"\n"),
            &[&format!("databases.{name}: is the name of the console; choose another")],
        );
    }
}

#[test]
fn database_needs_a_host() {
    refused("[databases.app]\n[roles.web]\npassword = \"p\"\n", &["databases.app.host: is missing"]);
}

#[test]
fn databases_and_roles_are_needed() {
    refused(
        "",
        &[
            "databases: there is none; add [databases.\"*\"] with a host, for example",
            "roles: there is none; add [roles.\"*\"] with auth = \"passthrough\", for example",
        ],
    );
}

#[test]
fn admin_roles_must_be_able_to_log_in() {
    for key in ["roles", "stats_roles"] {
        let admin = format!("[admin]\n{key} = [\"ops\"]\n");
        let nowhere = format!("admin.{key}: \"ops\" cannot log in; add [roles.ops]");
        let at_server = format!(
            "admin.{key}: \"ops\" proves itself to a server, and the console has none; give [roles.ops] a password"
        );
        refused(&format!("{admin}{}", role("password = \"p\"")), &[&*nowhere]);
        accepted(&format!("{admin}{}[roles.ops]\npassword = \"p\"\n", role("password = \"p\"")));
        refused(&format!("{admin}{}[roles.\"*\"]\nauth = \"passthrough\"\n", role("password = \"p\"")), &[&*at_server]);
        refused(&format!("{admin}{}[roles.\"*\"]\nsize = 5\n", role("password = \"p\"")), &[&*nowhere]);
    }
}

#[test]
fn who_may_act_in_the_console_may_look_there_too() {
    let both = "[admin]\nroles = [\"ops\"]\nstats_roles = [\"ops\", \"stats\"]\n[roles.ops]\npassword = \"p\"\n\
                [roles.stats]\npassword = \"p\"\n";
    let admin = accepted(&format!("{both}{}", role("password = \"p\""))).admin;
    assert_eq!(admin.access("ops"), Some(Access::Act));
    assert_eq!(admin.access("stats"), Some(Access::Look));
    assert_eq!(admin.access("web"), None);
}

#[test]
fn addresses_are_not_used_twice() {
    refused(
        &listening("addr = [\"127.0.0.1:1\", \"127.0.0.1:1\"]"),
        &["listen.addr: \"127.0.0.1:1\" is written twice"],
    );
    refused(
        &format!("{}[admin]\naddr = \"127.0.0.1:6432\"\n", listening("")),
        &["admin.addr: \"127.0.0.1:6432\" is taken by listen.addr"],
    );
}

#[test]
fn mistake_in_one_section_brings_no_others_with_it() {
    refused(
        "[listen.tls]\nmode = \"off\"\n[databases.app]\nhost = 5\n[admin]\nroles = [\"web\"]\n\
         [roles.web]\nauth = \"certificate\"\nsize = 0\n",
        &[
            "listen.tls.mode: \"off\" is not one of \"disable\", \"allow\", \"require\", \"verify-client\"",
            "databases.app.host: 5 is not a string",
            "roles.web.size: 0 is not between 1 and 262143",
        ],
    );
}

#[test]
fn star_that_is_no_table_hides_no_mistake_of_others() {
    refused(
        "[databases.app]\nhost = \"h\"\n[admin]\nroles = [\"ops\"]\n[roles]\n\"*\" = \"passthrough\"\n[roles.web]\nsize = 0\n",
        &[
            "roles.\"*\": is a string, not a table such as [roles.\"*\"]",
            "roles.web.size: 0 is not between 1 and 262143",
        ],
    );
}

#[test]
fn mistakes_name_their_line() {
    let mistakes =
        parse("\n\n[pool]\nsize = 1\nmode = \"slow\"\n[databases.app]\nhost=\"h\"\n[roles.w]\npassword=\"p\"")
            .expect_err("a mistake");
    assert_eq!(
        mistakes.to_string(),
        "proxy.toml:5: pool.mode: \"slow\" is not one of \"transaction\", \"session\", \"statement\""
    );
}

#[test]
fn ramp_needs_a_limit_to_lead_to() {
    let needs = "needs transactions_max, the limit that it leads to";
    refused(&role("auth = \"trust\"\nramp = { over = \"1m\" }"), &[&format!("roles.web.ramp: {needs}")]);
    accepted(&role("auth = \"trust\"\ntransactions_max = 0\nramp = { over = \"1m\" }"));
    // A star that only holds defaults may leave the limit to each role.
    let star = "[roles.\"*\"]\nramp = { over = \"1m\" }\n";
    accepted(&format!("{}{star}", role("auth = \"trust\"\ntransactions_max = 40")));
    refused(&format!("{}{star}", role("auth = \"trust\"")), &[&format!("roles.web.ramp: {needs}")]);
}

#[test]
fn more_cannot_be_kept_for_a_role_than_it_may_use() {
    let limits = |max, min| role(&format!("auth = \"trust\"\ntransactions_max = {max}\ntransactions_min = {min}"));
    refused(&limits(4, 5), &["roles.web.transactions_min: 5 is above transactions_max (4)"]);
    accepted(&limits(4, 4));
    // A valve is closed in a hurry.
    accepted(&limits(0, 5));
    refused(
        &format!("{}[roles.\"*\"]\ntransactions_max = 2\n", role("auth = \"trust\"\ntransactions_min = 3")),
        &["roles.web.transactions_min: 3 is above transactions_max (2)"],
    );
}

#[test]
fn keys_of_a_rate_need_one() {
    let keys = "auth = \"trust\"\nrate_burst = 5\nrate_delay_max = \"1s\"\nrate_when = \"always\"";
    refused(
        &role(keys),
        &[
            "roles.web.rate_burst: needs rate",
            "roles.web.rate_delay_max: needs rate",
            "roles.web.rate_when: needs rate",
        ],
    );
    accepted(&role(&format!("{keys}\nrate = \"400/s\"")));
    // Switched off for a while.
    accepted(&role(&format!("{keys}\nrate = \"off\"")));
    accepted(&format!("{}[roles.\"*\"]\nrate = \"24000/m\"\n", role(keys)));
}

#[test]
fn rate_may_not_use_up_the_wait() {
    let rate = "auth = \"trust\"\nrate = \"400/s\"";
    refused(
        &both("wait_timeout = \"10s\"", &format!("{rate}\nrate_delay_max = \"6s\"")),
        &[
            "roles.web.rate_delay_max: \"6s\" is more than half of the longest wait_timeout (\"10s\"), which goes on meanwhile",
        ],
    );
    accepted(&both("wait_timeout = \"10s\"", &format!("{rate}\nrate_delay_max = \"5s\"")));
    // A default gives way to what is written.
    let config = parse(&both("wait_timeout = \"3s\"", rate)).expect("valid");
    assert_eq!(config.roles["web"].limits.admission.rate.delay_max, Duration::from_millis(1500));
}

#[test]
fn login_may_not_be_delayed_past_its_timeout() {
    let file = |login_timeout, delay| {
        format!("[admission]\n{delay}\n{}", listening(&format!("login_timeout = \"{login_timeout}\"")))
    };
    refused(
        &file("10s", "login_delay_max = \"10s\""),
        &["admission.login_delay_max: \"10s\" is not below listen.login_timeout (\"10s\")"],
    );
    accepted(&file("10s", "login_delay_max = \"9s\""));
    // A default gives way to what is written.
    assert_eq!(parse(&file("9s", "")).expect("valid").admission.login_delay_max, Duration::from_secs(6));
    assert_eq!(parse(&file("60s", "")).expect("valid").admission.login_delay_max, Duration::from_secs(10));
}

#[test]
fn redis_bus_needs_the_url_of_one() {
    let notify = |keys: &str| format!("[notify]\n{keys}\n{}", role("auth = \"trust\""));
    refused(&notify("bus = \"redis\""), &["notify.redis_url: is missing; bus \"redis\" needs it"]);
    for url in [
        "redis://127.0.0.1",
        "redis://:never@127.0.0.1:6380/3",
        "rediss://user:never@cache.internal",
        "unix:///run/redis/redis.sock?db=2&pass=never",
    ] {
        accepted(&notify(&format!("bus = \"redis\"\nredis_url = \"{url}\"")));
    }
    // A bus that is switched for a while.
    accepted(&notify("bus = \"memory\"\nredis_url = \"redis://127.0.0.1\""));
}

#[test]
fn wrong_url_of_a_redis_is_not_repeated() {
    let url = "is not the URL of a Redis; write for example \"redis://127.0.0.1:6379/0\", \
               \"rediss://user:password@host:6379\" with TLS, or \"unix:///run/redis/redis.sock\"";
    let notify = |url: &str| format!("[notify]\nredis_url = \"{url}\"\n{}", role("auth = \"trust\""));
    for wrong in ["127.0.0.1:6379", "never:never@host", "http://never@host", "redis://host/zero", "redis://host:port"] {
        refused(&notify(wrong), &[&format!("notify.redis_url: {url}")]);
    }
    refused(
        &notify("rediss://:never@host/#insecure"),
        &["notify.redis_url: ends in #insecure, which checks no certificate; add the Redis's to the system's"],
    );
}

#[test]
fn password_of_the_watch_needs_its_role() {
    let watch = |keys: &str| format!("[watch]\n{keys}\n{}", role("auth = \"trust\""));
    refused(&watch("password = \"p\""), &["watch.role: is missing; password is its"]);
    accepted(&watch("role = \"watch\""));
    refused(&both("watch = { password = \"p\" }", "auth = \"trust\""), &["databases.app.watch.role: is missing"]);
    accepted(&both("watch = { role = \"watch\" }", "auth = \"trust\""));
}

// ## The commands

#[test]
fn check_warns_of_what_a_server_does_not_stand() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("proxy.toml");
    let checked = |text: String| {
        fs::write(&path, text).expect("written");
        let output = pgweir(&["check", path.to_str().expect("UTF-8")], "");
        assert_eq!(output.status.code(), Some(0), "a warning is no mistake");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let timed = "auth = \"trust\"\nstatement_timeout = \"5s\"\nlock_timeout = \"800ms\"";
    let warned = checked(both("size = 201", timed));
    assert!(
        warned.starts_with("warning: 127.0.0.1:5432 may get 201 transactions at once: the k-th waiter"),
        "{warned}"
    );
    assert!(warned.contains("1,000 stop the server for 40 s"), "{warned}");
    assert_eq!(checked(both("size = 201\nbackends_max = 200", timed)), "");
    let warned = checked(both("", "auth = \"trust\""));
    assert!(warned.starts_with("warning: no statement_timeout for \"web\"; no lock_timeout for \"web\": "), "{warned}");
}

#[test]
fn check_warns_of_doors_left_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("proxy.toml");
    let checked = |text: &str, mode: u32| {
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("our own file");
        let output = pgweir(&["check", path.to_str().expect("UTF-8")], "");
        assert_eq!(output.status.code(), Some(0), "a warning is no mistake");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let limits = "statement_timeout = \"5s\"\nlock_timeout = \"800ms\"\ntransactions_max = 10\n";
    let text = |listen: &str, host: &str, auth: &str, admin: &str| {
        format!(
            "[listen]\naddr = \"{listen}\"\n[databases.app]\nhost = \"{host}\"\n\
             [roles.web]\nauth = \"{auth}\"\n{limits}[admin]\n{admin}"
        )
    };
    let quiet = text("127.0.0.1:6432", "/run/postgresql", "trust", "");
    assert_eq!(checked(&quiet, 0o644), "", "only this machine reaches it, and there is no secret");
    let token = "token = \"0123456789abcdef\"";
    for (text, mode, warning) in [
        (text("[::]:6432", "::1", "trust", ""), 0o644, "roles.web.auth = \"trust\" lets in whoever reaches [::]:6432"),
        (text("10.0.0.1:6432", "::1", "passthrough", ""), 0o644, "listen.tls does not require TLS at 10.0.0.1:6432"),
        (text("[::1]:1", "::1", "trust", "roles = [\"web\"]"), 0o644, "trust\" lets everybody into the console"),
        (text("[::1]:1", "db.internal", "trust", ""), 0o644, "\"prefer\" does not check who answers as db.internal"),
        (text("[::1]:1", "::1", "trust", &format!("addr = \"10.0.0.1:1\"\n{token}")), 0o640, "admin.token goes over"),
        (
            text("[::1]:1", "::1", "trust", token),
            0o604,
            "has a secret in it, and every user of this machine may read it",
        ),
    ] {
        let warned = checked(&text, mode);
        assert!(warned.contains(warning), "{warning}: {warned}");
    }
    let elsewhere = "token = { file = \"token\" }";
    fs::write(dir.path().join("token"), "0123456789abcdef").expect("written");
    fs::set_permissions(dir.path().join("token"), fs::Permissions::from_mode(0o604)).expect("our own file");
    let warned = checked(&text("[::1]:1", "::1", "trust", elsewhere), 0o644);
    assert!(warned.contains("token has a secret") && !warned.contains("proxy.toml has"), "{warned}");
}

#[test]
fn check_prints_json_for_programs() {
    let checked = |file: &str| {
        let output = pgweir(&["check", "--json", file], "");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), report)
    };
    let (code, report) = checked("tests/config/valid/smallest.toml");
    assert_eq!((code, &report["ok"], &report["mistakes"]), (Some(0), &true.into(), &serde_json::json!([])));
    assert_eq!(report["worst_cases"][0]["transactions"], 20);
    let kinds: Vec<_> = report["warnings"].as_array().expect("a list").iter().map(|it| it["kind"].clone()).collect();
    assert!(kinds.contains(&"timeout".into()), "{report:#}");

    let (code, report) = checked("tests/config/invalid/unknown-keys.toml");
    assert_eq!((code, &report["ok"]), (Some(1), &false.into()));
    let first = &report["mistakes"][0];
    assert!(first["line"].is_u64() && first["key"].is_string() && first["text"].is_string(), "{report:#}");
}

#[test]
fn strict_check_takes_warnings_for_mistakes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("proxy.toml");
    let code = |text: String| {
        fs::write(&path, text).expect("written");
        pgweir(&["check", "--strict", path.to_str().expect("UTF-8")], "").status.code()
    };
    let timed = "auth = \"trust\"\nstatement_timeout = \"5s\"\nlock_timeout = \"800ms\"";
    assert_eq!(code(both("", timed)), Some(0));
    assert_eq!(code(both("", "auth = \"trust\"")), Some(1));
}

#[test]
fn check_compares_two_files_as_a_reload_would() {
    let dir = tempfile::tempdir().expect("a directory");
    let (old, new) = (dir.path().join("old.toml"), dir.path().join("new.toml"));
    let listen = |addr: &str| format!("[listen]\naddr = \"{addr}\"\n");
    let web = |size: u32| both(&format!("size = {size}"), "password = \"s3cret\"");
    fs::write(&old, listen("127.0.0.1:1") + &web(5)).expect("written");
    fs::write(&new, listen("127.0.0.1:2") + &web(6)).expect("written");
    let compared = |arguments: &[&str]| {
        let files = [old.to_str().expect("UTF-8"), new.to_str().expect("UTF-8")];
        let output = pgweir(&[&["check"], arguments, &["--diff"], &files].concat(), "");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(
        compared(&[]),
        "databases.app.size: 5 -> 6\nlisten.addr: 127.0.0.1:1 -> 127.0.0.1:2\nlisten.addr takes effect after a restart\n"
    );
    let json: serde_json::Value = serde_json::from_str(&compared(&["--json"])).expect("JSON");
    let size = serde_json::json!({ "key": "databases.app.size", "old": "5", "new": "6", "needs_restart": false });
    assert_eq!(json["changes"][0], size);
    assert_eq!(json["changes"][1]["needs_restart"], true);

    fs::write(&new, "[listen]\naddr = 5\n").expect("written");
    let output = pgweir(&["check", "--diff", old.to_str().expect("UTF-8"), new.to_str().expect("UTF-8")], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("new.toml:2: listen.addr: "));
}

#[test]
fn schema_completions_and_manual_page_are_printed() {
    let printed = |arguments: &[&str]| {
        let output = pgweir(arguments, "");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let schema: serde_json::Value = serde_json::from_str(&printed(&["schema"])).expect("JSON");
    assert_eq!(schema["properties"]["pool"]["properties"]["size"]["minimum"], 1);
    for shell in ["bash", "zsh", "fish"] {
        assert!(printed(&["completions", shell]).contains("verifier"), "{shell}");
    }
    assert!(printed(&["man"]).starts_with(".ie"), "{}", printed(&["man"]));
}

#[test]
fn check_refuses_certificates_that_a_start_would_refuse() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("proxy.toml");
    fs::write(dir.path().join("empty.crt"), "none").expect("written");
    let tls = "tls = { mode = \"require\", cert = \"empty.crt\", key = \"empty.crt\" }";
    let text =
        format!("[listen]\n{tls}\n{}", both("tls = { mode = \"verify-ca\", ca = \"empty.crt\" }", "auth = \"trust\""));
    fs::write(&path, text).expect("written");
    let output = pgweir(&["check", path.to_str().expect("UTF-8")], "");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(told.contains("proxy.toml: listen.tls: ") && told.contains("empty.crt: no certificate in it"), "{told}");
    assert!(told.contains("proxy.toml: databases.app.tls: ") && told.ends_with("2 mistakes\n"), "{told}");
}

#[test]
fn check_tells_what_is_in_a_valid_file() {
    let output = pgweir(&["check", "tests/config/valid/smallest.toml"], "");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "tests/config/valid/smallest.toml: ok: 1 database, 1 role, listening on 127.0.0.1:6432\n\
         127.0.0.1:5432: at most 20 transactions at once (databases: app 20); if all of them wait for one lock, the \
         server stands still for 0.00 s\n"
    );
}

#[test]
fn check_runs_no_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, ran) = (dir.path().join("proxy.toml"), dir.path().join("ran"));
    let command = format!("password = {{ command = [\"touch\", {ran:?}] }}");
    let text = format!(
        "[databases.app]\nhost = \"127.0.0.1\"\nlogin_as = \"owner\"\n{command}\n[roles.web]\npassword = \"w\"\n"
    );
    fs::write(&file, text).expect("our own directory");
    let output = pgweir(&["check", file.to_str().expect("text")], "");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!ran.exists());
}

#[test]
fn check_tells_every_mistake_and_fails() {
    let output = pgweir(&["check", "tests/config/invalid/two-mistakes.toml"], "");
    assert_eq!(output.status.code(), Some(1));
    let expected = fs::read_to_string("tests/config/invalid/two-mistakes.expected").expect("readable");
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{expected}2 mistakes\n"));
}

#[test]
fn run_with_an_invalid_file_fails() {
    let output = pgweir(&["--config", "tests/config/invalid/empty.toml"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("databases: there is none"));
}

#[test]
fn wrong_command_line_is_not_taken_for_an_address_that_cannot_be_listened_on() {
    assert_eq!(pgweir(&["chekc"], "").status.code(), Some(1));
    assert_eq!(pgweir(&["--version"], "").status.code(), Some(0));
}

#[test]
fn verifier_can_stand_in_the_file() {
    let output = pgweir(&["verifier"], "s3cret\n");
    assert_eq!(output.status.code(), Some(0));
    let verifier = String::from_utf8(output.stdout).expect("base64 and ASCII");
    accepted(&role(&format!("password = \"{}\"", verifier.trim_end())));
    assert_eq!(pgweir(&["verifier"], "").status.code(), Some(1));
}

// ## Anything at all

/// Values of every type, and strings that some key takes.
fn any_value() -> impl Strategy<Value = toml::Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(toml::Value::Integer),
        any::<f64>().prop_map(toml::Value::Float),
        any::<bool>().prop_map(toml::Value::Boolean),
        ".*".prop_map(toml::Value::String),
        "[0-9]{1,20}(ms|s|m|h|d)".prop_map(toml::Value::String),
        "[0-9:.\\[\\]]{1,20}|unix:/.{0,120}".prop_map(toml::Value::String),
        prop::sample::select(vec![
            "transaction",
            "standby",
            "verify-full",
            "verify-client",
            "password",
            "md5",
            "certificate",
            "spread",
            "batch",
            "400/s",
            "1/h",
            "64KiB",
            "redis",
            "redis://h",
            "*",
            "SCRAM-SHA-256$1:a$b:c",
            "",
            "\0",
            "proxy.toml",
        ])
        .prop_map(|text| toml::Value::String(text.to_owned())),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(toml::Value::Array),
            prop::collection::btree_map(any_key(), inner, 0..8)
                .prop_map(|table| toml::Value::Table(table.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    let known = vec![
        "listen",
        "admin",
        "pool",
        "databases",
        "roles",
        "addr",
        "tls",
        "mode",
        "cert",
        "key",
        "client_ca",
        "ca",
        "workers",
        "host",
        "port",
        "size",
        "auth_query",
        "role",
        "password",
        "query",
        "auth",
        "login_as",
        "env",
        "file",
        "backend_password",
        "statement_timeout",
        "clients_max",
        "admission",
        "initial",
        "login_rate",
        "login_delay_max",
        "transactions_max",
        "transactions_min",
        "ramp",
        "over",
        "rate",
        "rate_delay_max",
        "weight",
        "notify",
        "bus",
        "redis_url",
        "listener_queue",
        "watch",
        "password",
        "on_convoy",
        "*",
        "pgweir",
    ];
    prop_oneof![
        8 => prop::sample::select(known).prop_map(str::to_owned),
        1 => ".{0,8}",
    ]
}

proptest! {
    #[test]
    fn no_tree_makes_parse_panic(tree in prop::collection::btree_map(any_key(), any_value(), 0..8)) {
        let tree: toml::Table = tree.into_iter().collect();
        let text = toml::to_string(&tree).expect("a tree can be written");
        if let Ok(config) = parse(&text) {
            prop_assert!(!config.databases.is_empty());
            config::entries(&config);
        }
    }

    #[test]
    fn no_text_makes_parse_panic(text in "(?s).{0,200}") {
        let shown = parse(&text).expect_err("no databases").to_string();
        prop_assert!(shown.starts_with("proxy.toml"));
    }
}

// ## Helpers

fn files(kind: &str) -> impl Iterator<Item = PathBuf> {
    let dir = Path::new("tests/config").join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .expect("the directory is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files.into_iter()
}

fn read(file: &Path) -> Result<Config, Mistakes> {
    let env = |name: &str| match name {
        "APP_RW_PASSWORD" => Some("from the environment".to_owned()),
        "SET_BUT_EMPTY" => Some(String::new()),
        _ => None,
    };
    config::parse(&fs::read_to_string(file).expect("readable"), file, &env)
}

fn parse(text: &str) -> Result<Config, Mistakes> {
    config::parse(text, Path::new("proxy.toml"), &|_| None)
}

fn shown(config: &Config) -> String {
    let mut shown = String::new();
    for (key, value) in config::entries(config) {
        writeln!(shown, "{key}: {value}").expect("a string takes all");
    }
    shown
}

fn compare(file: &Path, shown: &str) {
    let expected = file.with_extension("expected");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&expected, shown).expect("written");
    }
    let expected = fs::read_to_string(&expected).unwrap_or_default();
    assert_eq!(shown, expected, "{}", file.display());
}

/// The key of a line such as `key = value`.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    is_key.then_some(key)
}

/// A file with these keys in `[listen]`.
fn listening(keys: &str) -> String {
    format!("[listen]\n{keys}\n{}", role("auth = \"trust\""))
}

/// A file with these keys in one role.
fn role(keys: &str) -> String {
    both("", keys)
}

/// A file with these keys in its one database and one role.
fn both(database: &str, role: &str) -> String {
    format!("[databases.app]\nhost = \"127.0.0.1\"\n{database}\n[roles.web]\n{role}\n")
}

fn accepted(text: &str) -> Config {
    parse(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

/// Exactly these mistakes, each as `key: text`.
fn refused(text: &str, expected: &[&str]) {
    let mistakes = parse(text).expect_err(text);
    let found: Vec<String> = mistakes.list.iter().map(|mistake| format!("{}: {}", mistake.key, mistake.text)).collect();
    assert_eq!(found, expected);
}

fn pgweir(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pgweir"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that does not read stdin may have closed it already.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    child.wait_with_output().expect("the program ends")
}
