//! [`classify`]: the one pass over a text that finds its effects on the session.

use super::effect::{Context, Effect, EffectList, Scope, StatementEffects};
use super::encoding::EncodingFamily;
use super::keyword::*;
use super::mask::Readable;
use super::notify;
use super::quick::{self, Head};
use super::read;
use super::scan::{ScannedStatement, Scanner};
use super::set;
use super::set_config;
use super::state_flags::StateFlags;
use super::statement_names;

#[inline]
fn ordinary(text: &[u8], context: Context) -> Option<Head> {
    match context.encoding == EncodingFamily::AsciiSafe || text.is_ascii() {
        true => quick::ordinary(text),
        false => None,
    }
}

/// True for one statement that leaves its session as it was, as far as a first look tells, and for all texts that
/// differ from it in literals alone.
pub(crate) fn is_plain(text: &[u8], context: Context) -> bool {
    ordinary(text, context).is_some()
}

/// The effects of `text` on its session.
#[inline]
pub fn classify(text: &[u8], context: Context) -> StatementEffects {
    if let Some(head) = ordinary(text, context) {
        return StatementEffects { statements: 1, moves_sequence: head == Head::Insert, ..StatementEffects::default() };
    }
    classify_slowly(text, context)
}

/// One pass; a second one over the few statements that have an effect.
pub(super) fn classify_slowly(text: &[u8], context: Context) -> StatementEffects {
    match Readable::of(text, context) {
        Readable::AsIs(text) => classify_readable(text, context.readable()),
        Readable::Masked(text) => {
            let mut class = classify_readable(&text, context.readable());
            class.unmask();
            class
        }
        Readable::Unreadable => StatementEffects { may_begin: StateFlags::UNCERTAIN, ..StatementEffects::default() },
    }
}

fn classify_readable(text: &[u8], context: Context) -> StatementEffects {
    let mut class = StatementEffects::default();
    let mut scanner = Scanner::new(text, context);
    while let Some(statement) = scanner.statement() {
        class.add(text, context, &statement);
        class.statements += 1;
    }
    if class.may_begin.contains(StateFlags::UNCERTAIN) {
        class.effects.clear();
    }
    class
}

impl StatementEffects {
    fn add(&mut self, text: &[u8], context: Context, statement: &ScannedStatement) {
        self.may_begin |= statement.may_begin;
        self.may_end |= statement.may_end;
        self.assigns |= statement.head == SET || statement.calls_set_config;
        self.moves_sequence |=
            statement.moves_sequence || matches!(statement.head, INSERT | MERGE | COPY | CALL | DO | EXECUTE);
        self.reads_sequence |= statement.reads_sequence;
        let text = &text[statement.span.clone()];
        match statement.head {
            SELECT if statement.calls_set_config => match set::read_select(text, context) {
                Some(effects) => self.extend(effects),
                None => self.add_calls(text, context),
            },
            SELECT if statement.names_channels => {
                if let Some(effect) = notify::read_select(text, context) {
                    self.push(effect);
                }
            }
            SELECT => {}
            SET => match set::read_set(text, context) {
                Some(effects) => self.extend(effects),
                None => self.may_begin |= StateFlags::SETTINGS,
            },
            RESET => match set::read_reset(text, context) {
                Some(effects) => self.extend(effects),
                None => self.may_begin |= StateFlags::SETTINGS,
            },
            BEGIN | START | COMMIT | END | ROLLBACK | ABORT | SAVEPOINT | RELEASE | PREPARE | DEALLOCATE | LISTEN
            | UNLISTEN | NOTIFY | DISCARD => match read::read(text, context, statement.head) {
                Some(Some(effect)) => self.push(effect),
                Some(None) => {}
                None => self.may_begin |= StateFlags::UNCERTAIN,
            },
            CLOSE => self.may_end |= StateFlags::HOLD,
            DROP => self.may_end |= StateFlags::TEMP,
            LOAD => self.may_begin |= StateFlags::LOAD,
            _ if statement.calls_set_config => self.add_calls(text, context),
            _ => {}
        }
        if statement.head == PREPARE
            && statement.calls_set_config
            && set_config::calls(text, context).any(|(_, call)| !call.is_surely_local())
        {
            // Nothing happens before an EXECUTE, which does not tell.
            self.may_begin |= StateFlags::SETTINGS;
        }
        if statement.says_execute {
            self.add_execute(text, context);
        }
        if statement.names_settings && read::updates_settings(text, context) {
            match statement.head {
                PREPARE => self.may_begin |= StateFlags::SETTINGS,
                _ => self.push(Effect::SetAny { scope: Scope::Session }),
            }
        }
    }

    /// The word EXECUTE is in a statement. The flags of the prepared text were raised at its PREPARE; the state that it
    /// creates comes only now.
    fn add_execute(&mut self, text: &[u8], context: Context) {
        match statement_names::executed(text, context) {
            Some(name) => {
                self.moves_sequence = true;
                self.push(Effect::Execute(name));
            }
            None => self.may_begin |= StateFlags::EXECUTED,
        }
    }

    fn extend(&mut self, effects: EffectList) {
        effects.into_iter().for_each(|effect| self.push(effect));
    }

    /// The calls of `set_config` in a statement that is not read as a whole.
    fn add_calls(&mut self, text: &[u8], context: Context) {
        for (_, call) in set_config::calls(text, context) {
            let is_local = call.is_surely_local();
            match call.effects_anywhere() {
                Some(effects) => self.extend(effects),
                None if is_local => self.push(Effect::SetAny { scope: Scope::Local }),
                None => self.may_begin |= StateFlags::SETTINGS,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(text: &str) -> StatementEffects {
        classify(text.as_bytes(), Context::default())
    }

    #[test]
    fn ordinary_statements_have_no_effect_and_no_suspect() {
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 1;",
            "SELECT temp, hold FROM sensors WHERE pg_advisory_lock = 'pg_advisory_lock(1)'",
            "INSERT INTO temp VALUES ('pg_temp')",
            "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)",
            "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
            "DECLARE hold CURSOR FOR SELECT 1",
            "SELECT set_config FROM t",
        ] {
            assert!(class(text).is_ordinary(), "{text}: {:?}", class(text));
        }
    }

    #[test]
    fn state_that_may_begin_is_suspected() {
        for (text, suspects) in [
            ("CREATE TEMP TABLE t (a int)", StateFlags::TEMP),
            ("CREATE OR REPLACE LOCAL TEMPORARY VIEW v AS SELECT 1", StateFlags::TEMP),
            ("SELECT 1 INTO TEMP x", StateFlags::TEMP),
            ("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", StateFlags::TEMP),
            ("CREATE TABLE \"pg_temp\".t (a int)", StateFlags::TEMP),
            ("SET search_path = 'pg_temp'", StateFlags::TEMP),
            ("DECLARE c CURSOR /* ; */ WITH HOLD FOR SELECT 1", StateFlags::HOLD),
            ("SELECT PG_Advisory_Lock /* x */ (1)", StateFlags::ADVISORY),
            ("WITH x AS (SELECT \"pg_try_advisory_lock_shared\"(1)) SELECT 1", StateFlags::ADVISORY),
            ("PREPARE p AS SELECT 1", StateFlags::PREPARE),
            ("LISTEN a", StateFlags::LISTEN),
            ("SET SESSION AUTHORIZATION x", StateFlags::AUTHORIZATION),
            ("SET session_authorization = 'x'", StateFlags::AUTHORIZATION),
            ("LOAD 'x'", StateFlags::LOAD),
            ("PREPARE p AS SELECT set_config($1, $2, false)", StateFlags::PREPARE | StateFlags::SETTINGS),
            ("SELECT U&\"pg_advisory\\005flock\"(1)", StateFlags::HIDDEN),
            ("SELECT SetSeed(0.5)", StateFlags::SEED),
            ("SELECT U&\"setse\\0065d\"(0.5)", StateFlags::HIDDEN | StateFlags::SEED),
            ("SET seed = 0.5", StateFlags::SEED),
            ("SELECT set_config('seed', '0.5', true)", StateFlags::SEED),
            ("SELECT public.\"dblink_connect\"('a', 'host=b')", StateFlags::DBLINK),
            ("SELECT dblink_connect_u('a', 'host=b')", StateFlags::DBLINK),
            ("SELECT pg_backup_start('x', true)", StateFlags::BACKUP),
            ("SELECT * FROM PG_Create_Physical_Replication_Slot('a', true, true)", StateFlags::REPLICATION_SLOT),
            ("SELECT pg_replication_origin_session_setup('x')", StateFlags::REPLICATION_ORIGIN),
        ] {
            let class = class(text);
            assert_eq!((class.may_begin, class.may_end), (suspects, StateFlags::NONE), "{text}");
        }
    }

    #[test]
    fn calls_that_end_a_state_are_known() {
        for (text, ended) in [
            ("SELECT * FROM pg_backup_stop()", StateFlags::BACKUP),
            ("SELECT pg_catalog.pg_drop_replication_slot('a')", StateFlags::REPLICATION_SLOT),
            ("SELECT pg_replication_origin_session_reset()", StateFlags::REPLICATION_ORIGIN),
        ] {
            assert_eq!((class(text).may_begin, class(text).may_end), (StateFlags::NONE, ended), "{text}");
        }
    }

    #[test]
    fn texts_that_move_or_read_a_sequence_are_known() {
        for text in [
            "INSERT INTO t VALUES (1)",
            "insert into t values ('pg_x')",
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING id) SELECT * FROM x",
            "MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT VALUES (1)",
            "COPY t FROM STDIN",
            "CALL p()",
            "DO $$BEGIN END$$",
            "EXECUTE p(1)",
            "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
            "PREPARE p AS INSERT INTO t VALUES (1)",
            "SELECT nextval('s')",
            "SELECT pg_catalog.\"setval\"('s', 1)",
            "SELECT 1; INSERT INTO t VALUES (1)",
        ] {
            assert!(class(text).moves_sequence && !class(text).reads_sequence, "{text}");
        }
        for text in ["SELECT LASTVAL()", "SELECT pg_catalog.currval('s'), 1", "UPDATE t SET a = \"currval\"('s')"] {
            assert!(!class(text).moves_sequence && class(text).reads_sequence && !class(text).is_ordinary(), "{text}");
        }
        let both = class("INSERT INTO t VALUES (currval('s'))");
        assert!(both.moves_sequence && both.reads_sequence);
        for text in ["SELECT 1", "SELECT lastval, 'nextval()' FROM t", "SELECT insert FROM t", "UPDATE t SET a = 1"] {
            assert!(!class(text).moves_sequence && !class(text).reads_sequence, "{text}");
        }
    }

    #[test]
    fn driver_boilerplate_can_only_end_state() {
        let asyncpg = class("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;");
        assert_eq!(asyncpg.statements, 4);
        assert_eq!(asyncpg.may_begin, StateFlags::NONE);
        assert_eq!(asyncpg.may_end, StateFlags::ADVISORY | StateFlags::HOLD | StateFlags::LISTEN);
        assert_eq!(asyncpg.effects[..], [(2, Effect::UnlistenAll), (3, Effect::ResetAll)]);
        for text in ["DISCARD ALL", "DEALLOCATE ALL", "SET SESSION AUTHORIZATION DEFAULT", "DROP TABLE t"] {
            let class = class(text);
            assert!(class.may_begin.is_empty() && !class.may_end.is_empty(), "{text}");
        }
    }

    #[test]
    fn effects_carry_the_number_of_their_statement() {
        let class = class("BEGIN;; SELECT 1; SET LOCAL a = 1; COMMIT");
        assert_eq!(class.effects.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2, 3]);
        assert!(class.controls_transaction());
    }

    #[test]
    fn what_does_not_end_is_uncertain_and_has_no_effect() {
        for text in ["SET x = 'a", "BEGIN; SELECT \"a", "BEGIN; /* ", "SET a = $x$"] {
            let class = class(text);
            assert!(class.may_begin.contains(StateFlags::UNCERTAIN), "{text}");
            assert!(class.effects.is_empty(), "{text}");
        }
    }

    #[test]
    fn encodings_whose_second_bytes_look_like_ascii_are_read() {
        let context = Context { encoding: EncodingFamily::TwoBytes, ..Context::default() };
        assert!(classify(b"SELECT E'\xbf\x5c'; SELECT 1", context).is_ordinary());
        assert_eq!(classify(b"SELECT E'\xbf\x5c'; SELECT 1", Context::default()).may_begin, StateFlags::UNCERTAIN);
        assert!(classify(b"SELECT 1", context).is_ordinary());
    }

    #[test]
    fn nested_calls_cost_no_more_than_their_length() {
        let text = "SELECT ".to_owned() + &"set_config(".repeat(200_000);
        assert_eq!(class(&text).may_begin, StateFlags::SETTINGS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_classified(text: Vec<u8>, standard_conforming_strings: bool, is_safe: bool) {
            let encoding = if is_safe { EncodingFamily::AsciiSafe } else { EncodingFamily::Gb18030 };
            classify(&text, Context { standard_conforming_strings, encoding });
        }

        #[test]
        fn any_mix_of_hard_words_is_classified(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "SET ", "LOCAL ", "SESSION ", "a", " TO ", "'", "\"", "E'", "\\", "$$", "$a$", "(", ")", ";", "/*", "*/", "--", "\n",
                    "SELECT ", "set_config(", "true", ",", "BEGIN ", "ATOMIC ", "END", "CREATE ", "FUNCTION ", "U&\"", "1", ".", "=",
                    "NOTIFY ", "PREPARE ", "TIME ZONE ", "DEFAULT", "ROLE ", "é",
                ]),
                0..24,
            ),
        ) {
            class(&parts.concat());
        }
    }
}
