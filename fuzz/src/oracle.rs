//! pgweir's reading of SQL held against Postgres's own scanner and grammar (libpg_query, through the `pg_query` crate).

use std::ops::Range;

use pg_query::protobuf::{ParseResult, RawStmt, SelectStmt, TransactionStmtKind, VariableSetKind};
use pg_query::{NodeEnum, ParserOptions};
use serde_json::{Map, Value as Tree};

use crate::sql::effect::Form;
use crate::sql::{self, Argument, Context, Effect, Scope, StateFlags, StatementEffects, Value};

/// Panics, saying how, if pgweir and Postgres read `text` differently, be `standard_conforming_strings` on or off. A
/// text that Postgres refuses proves nothing: nothing of it is executed, so that anything but a panic of our own will
/// do.
///
/// Answers whether Postgres took it (with the setting on), so that a list of seeds can be kept free of duds.
pub fn check(text: &str) -> bool {
    [MODES[1], MODES[0]].map(|mode| check_with(text, mode))[1]
}

/// The setting, and how the oracle is told of it.
const MODES: [(bool, ParserOptions); 2] =
    [(true, ParserOptions::DEFAULT), (false, ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS)];

fn check_with(text: &str, (standard_conforming_strings, options): (bool, ParserOptions)) -> bool {
    let context = Context { standard_conforming_strings, ..Context::default() };
    let class = sql::classify(text.as_bytes(), context);
    let spans: Vec<_> = sql::split(text.as_bytes(), context).collect();
    // A zero byte ends the text for Postgres; the frame it came in ends there too.
    if text.contains('\0') {
        return false;
    }
    let Ok(parsed) = pg_query::parse(text, options) else {
        return false;
    };
    agree(text, &class, &spans, &parsed.protobuf);
    same_with_stand_ins(text, context, options, spans.len());
    true
}

fn agree(text: &str, class: &StatementEffects, spans: &[Range<usize>], parsed: &ParseResult) {
    assert_eq!(spans.len(), parsed.stmts.len(), "statements of {text:?}: {spans:?}");
    assert_eq!(class.statements as usize, parsed.stmts.len(), "count of {text:?}");
    assert!(
        !class.may_begin.contains(StateFlags::UNCERTAIN) || text.to_ascii_lowercase().contains("u&"),
        "uncertain about {text:?}, which Postgres reads"
    );
    for (index, (span, statement)) in spans.iter().zip(&parsed.stmts).enumerate() {
        boundaries(text, span, statement);
        let effects: Vec<_> =
            class.effects.iter().filter(|(of, _)| *of as usize == index).map(|(_, effect)| effect).collect();
        if !class.may_begin.contains(StateFlags::UNCERTAIN)
            && let Some(node) = statement.stmt.as_ref().and_then(|node| node.node.as_ref())
        {
            kind(text, node, &effects, class);
        }
    }
}

/// Every statement Postgres cuts must hold ours; theirs has the white space and comments in front as well.
fn boundaries(text: &str, ours: &Range<usize>, theirs: &RawStmt) {
    let start = theirs.stmt_location as usize;
    let end = if theirs.stmt_len == 0 { text.len() } else { start + theirs.stmt_len as usize };
    assert!(start <= ours.start && ours.end <= end, "statement {ours:?} of {text:?} is {start}..{end}");
}

/// What one statement is to Postgres and what effects we gave it.
fn kind(text: &str, node: &NodeEnum, effects: &[&Effect], class: &StatementEffects) {
    let expect = |right: bool| assert!(right, "effects {effects:?} of {text:?}, which is {node:?}");
    let suspect = |suspects: StateFlags| {
        assert!(class.may_begin.contains(suspects), "{suspects:?} not among {class:?} of {text:?}");
    };
    match node {
        NodeEnum::TransactionStmt(statement) => {
            use TransactionStmtKind as K;
            let name = statement.savepoint_name.as_bytes();
            expect(match (statement.kind(), effects) {
                (K::TransStmtBegin | K::TransStmtStart, [Effect::Begin]) => true,
                (K::TransStmtCommit, [Effect::Commit { chain }]) => *chain == statement.chain,
                (K::TransStmtRollback, [Effect::Rollback { chain }]) => *chain == statement.chain,
                (K::TransStmtSavepoint, [Effect::Savepoint(savepoint)]) => savepoint == name,
                (K::TransStmtRelease, [Effect::Release(savepoint)]) => savepoint == name,
                (K::TransStmtRollbackTo, [Effect::RollbackTo(savepoint)]) => savepoint == name,
                (K::TransStmtPrepare, [Effect::PrepareTransaction]) => true,
                (K::TransStmtCommitPrepared | K::TransStmtRollbackPrepared, []) => true,
                _ => false,
            });
        }
        // libpg_query takes parameters here so that it can read normalised text; Postgres does not.
        NodeEnum::VariableSetStmt(statement) if has_parameter(&tree(&statement.args)) => {}
        NodeEnum::VariableSetStmt(statement) => {
            let scope = if statement.is_local { Scope::Local } else { Scope::Session };
            let name = statement.name.to_ascii_lowercase();
            let transaction = |name: &str| {
                matches!(name, "transaction_isolation" | "transaction_read_only" | "transaction_deferrable")
            };
            use VariableSetKind as K;
            expect(match (statement.kind(), effects) {
                (K::VarResetAll, [Effect::ResetAll]) => true,
                (_, [Effect::SetTransaction]) => {
                    transaction(&name) || name == "transaction" || name == "transaction snapshot"
                }
                (_, [Effect::SetTransaction, Effect::Set { scope: Scope::Local, setting }]) => {
                    name == "session_authorization" && statement.is_local && setting.name == "role"
                }
                (kind, [Effect::SetSessionAuthorization { to_default }, Effect::Set { .. } | Effect::Reset(_)]) => {
                    name == "session_authorization" && *to_default == (kind != K::VarSetValue)
                }
                (K::VarSetValue | K::VarSetCurrent, [Effect::SetUnknown { scope: ours, name: unknown }]) => {
                    *ours == scope && *unknown == name
                }
                (K::VarReset, [Effect::Reset(reset)]) => *reset == name,
                (K::VarSetDefault, [Effect::Reset(reset)]) => *reset == name && scope == Scope::Session,
                (K::VarSetDefault, [Effect::Set { scope: ours, setting }]) => {
                    *ours == scope && scope == Scope::Local && setting.name == name && setting.value == Value::Default
                }
                (K::VarSetValue, [Effect::Set { scope: ours, setting }]) => {
                    assert!(setting.value != Value::Default);
                    same_when_replayed(text, node, &setting.name, &setting.value);
                    *ours == scope && setting.name == name
                }
                (K::VarSetMulti, effects) => {
                    effects.iter().all(|effect| matches!(effect, Effect::Set { scope: ours, .. } if *ours == scope))
                        && !effects.is_empty()
                }
                (K::VarSetCurrent, []) => class.may_begin.contains(StateFlags::SETTINGS),
                // A dot inside quotes, or a name in Unicode escapes.
                (_, []) => class.may_begin.contains(StateFlags::SETTINGS) && text.contains('"'),
                _ => false,
            });
        }
        NodeEnum::ConstraintsSetStmt(_) => expect(matches!(effects, [Effect::SetTransaction])),
        NodeEnum::ExecuteStmt(statement) => {
            expect(matches!(effects, [Effect::Execute(name)] if name == statement.name.as_bytes()))
        }
        NodeEnum::DiscardStmt(_) => expect(matches!(effects, [Effect::DiscardAll | Effect::Discard(_)])),
        NodeEnum::PrepareStmt(statement) => {
            suspect(StateFlags::PREPARE);
            expect(matches!(effects, [Effect::Prepare(name)] if name == statement.name.as_bytes()));
        }
        NodeEnum::DeallocateStmt(statement) => expect(match effects {
            [Effect::DeallocateAll] => statement.isall,
            [Effect::Deallocate(name)] => !statement.isall && name == statement.name.as_bytes(),
            _ => false,
        }),
        NodeEnum::ListenStmt(statement) => {
            suspect(StateFlags::LISTEN);
            expect(matches!(effects, [Effect::Listen(channel)] if channel == statement.conditionname.as_bytes()));
        }
        NodeEnum::UnlistenStmt(statement) => expect(match effects {
            [Effect::UnlistenAll] => statement.conditionname.is_empty(),
            [Effect::Unlisten(channel)] => channel == statement.conditionname.as_bytes(),
            _ => false,
        }),
        NodeEnum::NotifyStmt(statement) => expect(match effects {
            [
                Effect::Notify {
                    form: Form::Command,
                    channel: Argument::Text(channel),
                    payload: Argument::Text(payload),
                },
            ] => channel == statement.conditionname.as_bytes() && payload == statement.payload.as_bytes(),
            _ => false,
        }),
        NodeEnum::SelectStmt(statement) => {
            expect(effects.iter().all(|effect| {
                matches!(
                    effect,
                    Effect::Set { .. }
                        | Effect::SetBound { .. }
                        | Effect::SetUnknown { .. }
                        | Effect::SetAny { .. }
                        | Effect::Reset(_)
                        | Effect::SetTransaction
                        | Effect::SetSessionAuthorization { .. }
                        | Effect::Notify { form: Form::Call, .. }
                        | Effect::ListeningChannels
                )
            }));
            if effects.iter().any(|effect| effect.concerns_channels()) {
                expect(effects.len() == 1 && is_one_call(statement));
            }
        }
        other => {
            expect(effects.iter().all(|effect| {
                matches!(
                    effect,
                    Effect::Execute(_)
                        | Effect::SetBound { value: None, .. }
                        | Effect::SetUnknown { .. }
                        | Effect::SetAny { .. }
                        | Effect::SetTransaction
                        | Effect::SetSessionAuthorization { .. }
                        | Effect::Set { .. }
                )
            }));
            match other {
                NodeEnum::LoadStmt(_) => suspect(StateFlags::LOAD),
                NodeEnum::ClosePortalStmt(_) => {
                    assert!(class.may_end.contains(StateFlags::HOLD), "{text:?}")
                }
                // CURSOR_OPT_HOLD of `parsenodes.h`.
                NodeEnum::DeclareCursorStmt(statement) if statement.options & 0x20 != 0 => suspect(StateFlags::HOLD),
                NodeEnum::DropStmt(_) => {
                    assert!(class.may_end.contains(StateFlags::TEMP), "{text:?}")
                }
                _ => {}
            }
        }
    }
    nested(&tree(node), text, effects, class);
}

/// A SELECT of one call, in its list or behind its FROM, and of nothing else.
fn is_one_call(statement: &SelectStmt) -> bool {
    let clauses = [
        &statement.distinct_clause,
        &statement.group_clause,
        &statement.window_clause,
        &statement.sort_clause,
        &statement.locking_clause,
        &statement.values_lists,
    ];
    calls(&tree(statement)) == 1
        && statement.target_list.len() == 1
        && clauses.iter().all(|clause| clause.is_empty())
        && statement.where_clause.is_none()
        && statement.having_clause.is_none()
        && statement.limit_count.is_none()
        && statement.limit_offset.is_none()
        && statement.into_clause.is_none()
        && statement.with_clause.is_none()
        && statement.larg.is_none()
}

/// With stand-ins in it a text is still one that Postgres takes, of as many statements, and with nothing left to
/// replace.
fn same_with_stand_ins(text: &str, context: Context, options: ParserOptions, count: usize) {
    let Some((replaced, class)) = sql::stand_ins(text.as_bytes(), context, |_| true) else {
        return;
    };
    let replaced = String::from_utf8(replaced).expect("built from a text that is UTF-8");
    let parsed =
        pg_query::parse(&replaced, options).unwrap_or_else(|error| panic!("{replaced:?} of {text:?}: {error}"));
    assert_eq!((parsed.protobuf.stmts.len(), class.statements as usize), (count, count), "{replaced:?} of {text:?}");
    let again = sql::stand_ins(replaced.as_bytes(), context, |_| true);
    assert_eq!(again, None, "{replaced:?} of {text:?}");
}

/// Temporary relations and calls anywhere in the tree.
fn nested(tree: &Tree, text: &str, effects: &[&Effect], class: &StatementEffects) {
    let has = |suspects| class.may_begin.contains(suspects);
    visit(tree, &mut |node| {
        let is = |field: &str, value: &str| node.get(field).is_some_and(|found| found == value);
        assert!(!is("relpersistence", "t") || has(StateFlags::TEMP), "TEMP missed in {text:?}");
        assert!(!is("schemaname", "pg_temp") || has(StateFlags::TEMP), "pg_temp missed in {text:?}");
        match called(node).unwrap_or_default() {
            "pg_advisory_lock" | "pg_advisory_lock_shared" | "pg_try_advisory_lock" | "pg_try_advisory_lock_shared" => {
                assert!(has(StateFlags::ADVISORY), "ADVISORY missed in {text:?}");
            }
            "pg_advisory_unlock" | "pg_advisory_unlock_shared" | "pg_advisory_unlock_all" => {
                assert!(class.may_end.contains(StateFlags::ADVISORY), "unlock missed in {text:?}");
            }
            "set_config" => assert!(
                has(StateFlags::SETTINGS)
                    || has(StateFlags::UNCERTAIN)
                    || effects.iter().any(|effect| sets(effect))
                    || is_not_three_or_local(node),
                "set_config missed in {text:?}"
            ),
            _ => {}
        }
    });
}

/// The name of the function that a node calls, without its schema.
fn called(node: &Map<String, Tree>) -> Option<&str> {
    let name = node.get("funcname")?.as_array()?.last()?;
    name.pointer("/node/String/sval")?.as_str()
}

/// A call that Postgres refuses for the number of its arguments, or whose last argument says that what it sets ends
/// with the transaction.
fn is_not_three_or_local(call: &Map<String, Tree>) -> bool {
    let Some(args) = call.get("args").and_then(Tree::as_array) else {
        return true;
    };
    let mut last = args.last();
    while let Some(cast) = last.and_then(|arg| arg.pointer("/node/TypeCast/arg")) {
        last = Some(cast);
    }
    let value = last.and_then(|arg| arg.pointer("/node/AConst/val"));
    let is_true = |text: &str| matches!(sql_bool(text), Some(true));
    args.len() != 3
        || value.is_some_and(|value| {
            value.pointer("/Boolval/boolval") == Some(&Tree::Bool(true))
                || value.pointer("/Sval/sval").and_then(Tree::as_str).is_some_and(is_true)
        })
}

/// `parse_bool` of `bool.c`.
fn sql_bool(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(text.as_str());
    if begins("true", 1) || begins("yes", 1) || text == "on" || text == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

/// An effect on settings.
fn sets(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Set { .. }
            | Effect::SetBound { .. }
            | Effect::SetUnknown { .. }
            | Effect::SetAny { .. }
            | Effect::Reset(_)
            | Effect::SetTransaction
            | Effect::SetSessionAuthorization { .. }
    )
}

/// Every node of a tree that has fields.
fn visit(tree: &Tree, see: &mut impl FnMut(&Map<String, Tree>)) {
    match tree {
        Tree::Object(fields) => {
            see(fields);
            fields.values().for_each(|field| visit(field, see));
        }
        Tree::Array(items) => items.iter().for_each(|item| visit(item, see)),
        _ => {}
    }
}

/// A `$1` somewhere in a tree.
fn has_parameter(tree: &Tree) -> bool {
    let mut found = false;
    visit(tree, &mut |node| found |= node.contains_key("ParamRef"));
    found
}

/// How many calls of functions a tree has.
fn calls(tree: &Tree) -> usize {
    let mut count = 0;
    visit(tree, &mut |node| {
        count += usize::from(node.contains_key("funcname"));
    });
    count
}

/// A value that was set with SQL comes back, parsed by Postgres, as the value it was.
fn same_when_replayed(text: &str, node: &NodeEnum, name: &str, value: &Value) {
    let (Value::Raw(_), NodeEnum::VariableSetStmt(original)) = (value, node) else {
        return;
    };
    let replayed = String::from_utf8(sql::replay([(name, value)])).expect("built from a text that is UTF-8");
    let values = |args: &[pg_query::protobuf::Node]| without_locations(tree(&args));
    for (_, options) in MODES {
        let parsed =
            pg_query::parse(&replayed, options).unwrap_or_else(|error| panic!("{replayed:?} of {text:?}: {error}"));
        let last = parsed.protobuf.stmts.last().and_then(|statement| statement.stmt.as_ref()?.node.as_ref());
        let Some(NodeEnum::VariableSetStmt(again)) = last else { panic!("{replayed:?} of {text:?} is {last:?}") };
        assert_eq!(values(&original.args), values(&again.args), "{replayed:?} of {text:?}");
    }
}

/// The same tree without the places its nodes stood at.
fn without_locations(mut tree: Tree) -> Tree {
    match &mut tree {
        Tree::Object(fields) => {
            fields.remove("location");
            fields.values_mut().for_each(|field| *field = without_locations(field.take()));
        }
        Tree::Array(items) => items.iter_mut().for_each(|item| *item = without_locations(item.take())),
        _ => {}
    }
    tree
}

fn tree(node: &impl serde::Serialize) -> Tree {
    serde_json::to_value(node).expect("a tree of names, numbers and texts")
}
