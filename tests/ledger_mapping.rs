//! `column_map`: what of an attached ledger is read as what, and which of its rows are charges.

mod common;
mod ledger_books;
mod usage_common;

use std::sync::{Arc, Mutex};

use common::{error_of, one, run_sql};
use ledger_books::*;
use postgres::{Client, NoTls};
use usage_common::{assert_books_hold, books, column, session};

const OWNERS: &str = r#""user_id": "who", "organization_id": "team", "created_at": "at""#;

/// Attaches a table for the time of `check`, first with its rows in it, then with the same rows
/// written to it: reading and capturing must agree.
#[track_caller]
fn both_ways(c: &mut Client, table: &str, map: &str, mut check: impl FnMut(&mut Client)) {
    run_sql(c, "BEGIN");
    attach_as(c, "t", table, map, ", backfill => true");
    check(c);
    run_sql(
        c,
        &format!(
            "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM {table}; DELETE FROM {table}"
        ),
    );
    assert_eq!(figures(c), Vec::<String>::new(), "{map}");
    run_sql(c, &format!("INSERT INTO {table} SELECT * FROM kept"));
    check(c);
    assert_books_hold(c);
    run_sql(c, "ROLLBACK");
}

#[test]
fn every_part_is_read_from_where_the_map_says() {
    let (_db, mut c) = books();
    // Names that only quoting keeps apart from SQL, {rows} and {cuts}.
    run_sql(
        &mut c,
        r#"CREATE SCHEMA "my ""schema""";
           CREATE TABLE "my ""schema"""."LLM; DROP TABLE x --" (
               "user" text, "the ""org""" uuid, "cost µ$'; --" int, "{rows}" timestamptz,
               "{cuts}" text, "$1" varchar(40), "Model" text, app text, sign int, slot text);
           INSERT INTO "my ""schema"""."LLM; DROP TABLE x --" VALUES
               ('ann', NULL, 1, '2024-05-01 10:00Z', NULL, NULL, 'third', 'cli', 5, 'x'),
               ('ann', NULL, 20, '2024-05-01 10:00Z', NULL, 'second', 'third', NULL, 5, 'x'),
               ('bob', '5C6A1B7E-0000-4000-8000-00000000000A', 300, '2024-05-01 10:00Z', 'first', 'second', NULL, 'cli', 5, 'x')"#,
    );
    let map = r#"{"user_id": {"column": "user"}, "organization_id": {"columns": ["the \"org\""]},
        "amount": {"column": "cost µ$'; --"}, "created_at": {"column": "{rows}"},
        "model_or_plan_key": {"columns": ["{cuts}", "$1", "Model"]}, "product_key": "app",
        "feature_key": {"value": "chat"}, "provider_key": {"value": null}}"#;
    both_ways(&mut c, r#""my ""schema"""."LLM; DROP TABLE x --""#, map, |c| {
        let drivers: Vec<String> = column(
            c,
            "SELECT concat_ws(' ', owner_kind, owner_id, actor_user_id, source, product_key, feature_key,
                        model_or_plan_key, provider_key, total_microdollars, spend_record_count)
             FROM exa_billing.spend_drivers_hourly ORDER BY total_microdollars",
        );
        let org = "5c6a1b7e-0000-4000-8000-00000000000a";
        assert_eq!(
            drivers,
            [
                "user ann ann ai_gateway cli chat third other 1 1".to_owned(),
                "user ann ann ai_gateway other chat second other 20 1".to_owned(),
                format!("organization {org} bob ai_gateway cli chat first other 300 1"),
            ]
        );
        // Everything of one owner is found by the id the books have.
        for (kind, id, amount) in [("user", "ann", 21_i64), ("organization", org, 300)] {
            assert_eq!(used(c, kind, id), amount);
            let sql = format!(
                "SELECT new_microdollars_used FROM exa_billing.recompute_{kind}_balances($1, true)"
            );
            assert_eq!(one::<i64>(c, &sql, &[&id]), amount);
        }
    });
}

#[test]
fn an_owner_may_be_the_same_for_all_rows() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "CREATE TABLE public.t (id int, who text, cost bigint, at timestamptz);
         INSERT INTO public.t VALUES (1, 'ann', 5, '2024-05-01 10:00Z'), (2, 'bob', 60, '2024-05-01 10:00Z')",
    );
    let rest = r#""amount": "cost", "created_at": "at""#;
    let personal = format!(r#"{{"user_id": "who", "organization_id": {{"value": null}}, {rest}}}"#);
    both_ways(&mut c, "public.t", &personal, |c| {
        assert_eq!((used(c, "user", "ann"), used(c, "user", "bob")), (5, 60));
    });
    let of_acme =
        format!(r#"{{"user_id": "who", "organization_id": {{"value": "acme's"}}, {rest}}}"#);
    both_ways(&mut c, "public.t", &of_acme, |c| {
        assert_eq!((used(c, "user", "ann"), used(c, "organization", "acme's")), (0, 65));
        assert_eq!(models(c, "acme's")[1].1.as_deref(), Some("bob"));
    });
    let nobody_known =
        format!(r#"{{"user_id": {{"value": null}}, "organization_id": "who", {rest}}}"#);
    both_ways(&mut c, "public.t", &nobody_known, |c| {
        assert_eq!((used(c, "organization", "bob"), models(c, "bob")[0].1.clone()), (60, None));
    });
    let either = format!(
        r#"{{"user_id": {{"value": "a robot"}}, "organization_id": {{"columns": ["who", "who"]}}, {rest}}}"#
    );
    both_ways(&mut c, "public.t", &either, |c| {
        assert_eq!((used(c, "organization", "ann"), used(c, "user", "a robot")), (5, 0));
    });
}

#[test]
fn a_ledger_of_negative_amounts_is_turned_round() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "CREATE TABLE public.t (who text, team text, change bigint, small int, at timestamptz);
         INSERT INTO public.t VALUES ('ann', NULL, -500, -1, '2024-05-01 10:00Z'),
             ('ann', NULL, 10000, 2, '2024-05-01 10:00Z'), ('ann', 'acme', -60, -2147483648, '2024-05-01 11:00Z'),
             ('ann', NULL, NULL, NULL, '2024-05-01 10:00Z'), ('ann', NULL, 0, 0, '2024-05-01 10:00Z')",
    );
    for (amount, ann, acme) in [
        (r#""amount": "change", "negate": true"#, 500, 60),
        (r#""amount": {"column": "change", "negate": true}"#, 500, 60),
        (r#""amount": {"column": "change", "negate": true}, "negate": false"#, 500, 60),
        (r#""amount": {"column": "change", "negate": false}, "negate": true"#, 10_000, 0),
        (r#""amount": "change", "negate": false"#, 10_000, 0),
        (r#""amount": {"column": "small", "negate": true}"#, 1, 2_147_483_648),
    ] {
        both_ways(&mut c, "public.t", &format!("{{{OWNERS}, {amount}}}"), |c| {
            assert_eq!(
                (used(c, "user", "ann"), used(c, "organization", "acme")),
                (ann, acme),
                "{amount}"
            );
        });
    }
}

/// Three values of each type that conditions may be about, as JSON and as SQL has them.
const TYPES: [(&str, [&str; 3]); 8] = [
    ("text", [r#""a""#, r#""Zebra""#, r#""it's \\ \"é\"""#]),
    ("varchar(30)", [r#""""#, r#""B""#, r#""b""#]),
    (
        "uuid",
        [
            r#""00000000-0000-4000-8000-000000000001""#,
            r#""5C6A1B7E-0000-4000-8000-000000000001""#,
            r#""ffffffff-0000-4000-8000-000000000001""#,
        ],
    ),
    ("smallint", ["-32768", "0", "32767"]),
    ("int", ["-2147483648", "-1", "2147483647"]),
    ("bigint", ["-9223372036854775808", "7", "9223372036854775807"]),
    ("boolean", ["false", "true", "true"]),
    (
        "timestamptz",
        [
            r#""0001-01-01T00:00:00Z""#,
            r#""2024-05-01T10:00:00.000001+05:30""#,
            r#""9999-12-31T23:59:59Z""#,
        ],
    ),
];

#[test]
fn every_condition_selects_what_the_same_sql_selects() {
    let (_db, mut c) = books();
    for (sql_type, values) in TYPES {
        let rows: Vec<String> = (0..)
            .zip(values.iter().copied().chain(["null"]))
            .map(|(n, value)| {
                format!(
                    "({}, 'ann', '2024-05-01 10:00Z', ($v$[{value}]$v$::jsonb ->> 0)::{sql_type})",
                    1 << n
                )
            })
            .collect();
        run_sql(
            &mut c,
            &format!(
                "DROP TABLE IF EXISTS public.t;
                 CREATE TABLE public.t (cost int, who text, at timestamptz, v {sql_type});
                 INSERT INTO public.t VALUES {}",
                rows.join(", ")
            ),
        );
        let is_words = sql_type == "text" || sql_type.starts_with("varchar");
        let collated = if is_words { "v COLLATE \"C\"" } else { "v" };
        let mut conditions = vec![
            (r#""op": "is_null""#.to_owned(), "v IS NULL".to_owned()),
            (r#""op": "is_not_null", "value": null"#.to_owned(), "v IS NOT NULL".to_owned()),
        ];
        for value in values {
            let literal = format!("($v$[{value}]$v$::jsonb ->> 0)::{sql_type}");
            for op in ["=", "<>", "<", "<=", ">", ">="] {
                conditions.push((
                    format!(r#""op": "{op}", "value": {value}"#),
                    format!("{collated} {op} {literal}"),
                ));
            }
            conditions.push((
                format!(r#""op": "in", "value": [{value}, {}]"#, values[0]),
                format!(
                    "{collated} IN ({literal}, ($v$[{}]$v$::jsonb ->> 0)::{sql_type})",
                    values[0]
                ),
            ));
            if is_words {
                conditions.push((
                    format!(r#""op": "starts_with", "value": {value}"#),
                    format!("starts_with(v, {literal})"),
                ));
            }
        }
        for (condition, predicate) in conditions {
            let map = format!(
                r#"{{"user_id": "who", "organization_id": {{"value": null}}, "created_at": "at",
                     "amount": "cost", "where": [{{"column": "v", {condition}}}]}}"#
            );
            let selected = format!("SELECT coalesce(sum(cost), 0) FROM public.t WHERE {predicate}");
            let selected: i64 = one(&mut c, &selected, &[]);
            // As in `both_ways`, in fewer steps: there are many of these.
            run_sql(&mut c, "BEGIN");
            attach_as(&mut c, "t", "public.t", &map, ", backfill => true");
            assert_eq!(used(&mut c, "user", "ann"), selected, "{sql_type} {condition}, read");
            run_sql(&mut c, "UPDATE public.t SET who = 'bob'");
            assert_eq!(used(&mut c, "user", "ann"), 0, "{sql_type} {condition}, taken back");
            assert_eq!(used(&mut c, "user", "bob"), selected, "{sql_type} {condition}, captured");
            run_sql(&mut c, "ROLLBACK");
        }
    }
}

#[test]
fn all_conditions_together_select_and_a_row_becomes_spend_when_it_meets_them() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "CREATE TABLE public.t (who text, cost bigint, at timestamptz, status text, is_test boolean, tries int)",
    );
    let map = r#"{"user_id": "who", "organization_id": {"value": null}, "amount": "cost", "created_at": "at",
        "where": [{"column": "status", "op": "in", "value": ["done", "'; DROP TABLE public.t; --"]},
                  {"column": "is_test", "op": "=", "value": false}, {"column": "tries", "op": "<", "value": 3},
                  {"column": "status", "op": "is_not_null"}]}"#;
    attach_as(&mut c, "t", "public.t", map, ", backfill => true");
    run_sql(
        &mut c,
        "INSERT INTO public.t VALUES ('ann', 80, '2024-05-01 10:00Z', 'pending', false, 1)",
    );
    for (change, expected) in [
        ("status = 'done'", 80),
        ("is_test = true", 0),
        ("is_test = false, cost = 90", 90),
        ("is_test = NULL", 0),
        ("is_test = false, status = '''; DROP TABLE public.t; --'", 90),
        ("tries = 3", 0),
        ("tries = 2", 90),
        ("status = NULL", 0),
    ] {
        run_sql(&mut c, &format!("UPDATE public.t SET {change}"));
        assert_eq!(used(&mut c, "user", "ann"), expected, "{change}");
        assert_books_hold(&mut c);
    }
}

/// Upper case before lower, and nothing equal that is not the same, whatever a column's collation.
#[test]
fn texts_are_compared_by_their_bytes() {
    let (_db, mut c) = books();
    let has_icu = "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'en-x-icu')";
    if !one::<bool>(&mut c, has_icu, &[]) {
        return; // a server built without ICU has no collation that orders otherwise
    }
    run_sql(
        &mut c,
        "CREATE COLLATION public.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE public.t (who text COLLATE public.any_case, team text COLLATE \"en-x-icu\", cost bigint,
             at timestamptz, model text COLLATE public.any_case, plan varchar(9) COLLATE \"POSIX\", v text COLLATE \"en-x-icu\");
         CREATE INDEX ON public.t (who, at);
         INSERT INTO public.t VALUES
             ('Ann', NULL, 1, '2024-05-01 10:00Z', 'Opus', NULL, 'a'), ('ann', NULL, 20, '2024-05-01 10:00Z', 'opus', NULL, 'B'),
             ('ann', NULL, 300, '2024-05-01 10:00Z', NULL, 'OPUS', 'Z'), ('ANN', 'Acme', 4000, '2024-05-01 10:00Z', NULL, NULL, 'z'),
             ('ANN', 'acme', 50000, '2024-05-01 10:00Z', NULL, NULL, 'é')",
    );
    let parts = format!(
        r#"{OWNERS}, "amount": "cost", "model_or_plan_key": {{"columns": ["model", "plan"]}}"#
    );
    both_ways(&mut c, "public.t", &format!("{{{parts}}}"), |c| {
        assert_eq!(
            (used(c, "user", "Ann"), used(c, "user", "ann"), used(c, "user", "ANN")),
            (1, 320, 0)
        );
        assert_eq!(
            (used(c, "organization", "Acme"), used(c, "organization", "acme")),
            (4000, 50000)
        );
        let ann = || Some("ann".to_owned());
        assert_eq!(
            models(c, "ann"),
            [("OPUS".to_owned(), ann(), 300, 1), ("opus".to_owned(), ann(), 20, 1)]
        );
        let recompute =
            "SELECT new_microdollars_used FROM exa_billing.recompute_user_balances($1, true)";
        for (id, amount) in [("Ann", 1_i64), ("ann", 320), ("ANN", 0)] {
            assert_eq!(one::<i64>(c, recompute, &[&id]), amount, "{id}");
            let sql = "SELECT count(*) FROM exa_billing.verify_books('user', $1)";
            assert_eq!(one::<i64>(c, sql, &[&id]), 0, "{id}");
        }
    });
    for (condition, expected) in [
        (r#""op": "<", "value": "a""#, 320),
        (r#""op": ">=", "value": "a""#, 54001),
        (r#""op": ">", "value": "z""#, 50000),
        (r#""op": "=", "value": "A""#, 0),
        (r#""op": "in", "value": ["b", "z"]"#, 4000),
    ] {
        let map = format!(r#"{{{parts}, "where": [{{"column": "v", {condition}}}]}}"#);
        both_ways(&mut c, "public.t", &map, |c| {
            let all = "SELECT coalesce(sum(microdollars_used), 0)::bigint FROM exa_billing.account_balances";
            assert_eq!(one::<i64>(c, all, &[]), expected, "{condition}");
        });
    }
}

#[test]
fn a_map_that_does_not_fit_the_table_is_refused_before_anything_is_done() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "CREATE DOMAIN public.dollars AS bigint;
         CREATE TABLE public.t (who text, team text, cost bigint, at timestamptz, day date, price numeric, fee dollars,
                                n smallint, c char(9), j jsonb, gone text);
         ALTER TABLE public.t DROP COLUMN gone",
    );
    for (key, map) in [
        ("amount", r#""amount": "price""#),
        ("amount", r#""amount": "fee""#),
        ("amount", r#""amount": "n""#),
        ("created_at", r#""amount": "cost", "created_at": "day""#),
        ("user_id", r#""amount": "cost", "user_id": "c""#),
        ("user_id", r#""amount": "cost", "user_id": "gone""#),
        ("user_id", r#""amount": "cost", "user_id": "........pg.dropped.11........""#),
        ("organization_id", r#""amount": "cost", "organization_id": "ctid""#),
        ("organization_id", r#""amount": "cost", "organization_id": "Team""#),
        ("product_key", r#""amount": "cost", "product_key": "n""#),
        ("where", r#""amount": "cost", "where": [{"column": "j", "op": "is_null"}]"#),
        (
            "where",
            r#""amount": "cost", "where": [{"column": "at", "op": ">", "value": "2024-05-01 10:00"}]"#,
        ),
        (
            "where",
            r#""amount": "cost", "where": [{"column": "at", "op": ">", "value": "0000-06-01T00:00:00Z"}]"#,
        ),
        ("where", r#""amount": "cost", "where": [{"column": "n", "op": "<", "value": 32768}]"#),
    ] {
        let map = format!("{{{OWNERS}, {map}}}");
        let call = format!(
            "SELECT exa_billing.attach_spend_source('t', 'public.t', 'variable', 's', $m${map}$m$)"
        );
        let error = error_of(&mut c, &call);
        assert_eq!(error.code, "22023", "{map}: {error:?}");
        assert!(error.message.starts_with(&format!("column_map: {key}: ")), "{map}: {error:?}");
    }
    let left = "SELECT (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.t'::regclass)
                     + (SELECT count(*) FROM exa_billing.spend_sources WHERE NOT is_own)
                     + (SELECT count(*) FROM pg_attribute WHERE attrelid = 'public.t'::regclass AND attacl IS NOT NULL)";
    assert_eq!(one::<i64>(&mut c, left, &[]), 0);
}

/// A session that keeps what the server has to say beside its answers.
fn listening(db: &common::Database) -> (Client, Arc<Mutex<Vec<String>>>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&said);
    let mut config = db.config();
    config.notice_callback(move |notice| {
        keep.lock().unwrap().push(format!("{}: {}", notice.severity(), notice.message()));
    });
    (config.connect(NoTls).expect("a session"), said)
}

#[test]
fn whoever_attaches_is_told_of_the_indexes_that_are_missing_and_of_nothing_else() {
    let (db, _c) = books();
    let (mut c, said) = listening(&db);
    run_sql(
        &mut c,
        "CREATE TABLE public.\"my ledger\" (who text, team text, cost bigint, at timestamptz);
         CREATE INDEX ON public.\"my ledger\" (who)",
    );
    let map = format!(r#"{{{OWNERS}, "amount": "cost"}}"#);
    run_sql(&mut c, "BEGIN");
    attach_as(&mut c, "t", "public.\"my ledger\"", &map, "");
    run_sql(&mut c, "ROLLBACK");
    let advice = std::mem::take(&mut *said.lock().unwrap());
    assert_eq!(advice.len(), 2, "{advice:?}");
    for line in &advice {
        assert!(line.starts_with("WARNING: "), "{line}");
        let at = line.find("CREATE INDEX").expect("the statement that helps");
        run_sql(&mut c, &line[at..]);
    }
    attach_as(&mut c, "t", "public.\"my ledger\"", &map, "");
    assert_eq!(detach(&mut c, "t"), 0);
    assert_eq!(*said.lock().unwrap(), Vec::<String>::new());
    assert_books_hold(&mut session(&db));
}
