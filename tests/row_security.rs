//! Row security: what an end user sees of each table and view and through each function, and what
//! nobody else is shown or hidden.

mod books_common;
mod common;
mod row_security_common;

use books_common::{assert_no_violations, assert_same, figures, texts};
use common::{error_of, one, run_sql};
use postgres::Client;
use row_security_common::{STAFF, World, rows_of};

/// How a table or view tells whose a row is.
enum Whose {
    Owner,
    /// A user's, and one of an organization where it is made for one.
    Usage,
    User,
    Organization,
    /// By other tables.
    Dimension,
    Everybodys,
}

/// Everything an end user may read; the condition that a superuser selects the same rows with.
const READABLE: [(&str, Whose); 26] = [
    ("account_balances", Whose::Owner),
    ("accounts", Whose::Owner),
    ("cost_insight_events", Whose::Owner),
    ("cost_suggestions", Whose::Owner),
    ("credit_transactions", Whose::Owner),
    ("exa_monthly_allowance", Whose::User),
    ("exa_monthly_usage", Whose::Usage),
    ("exa_monthly_usage_current", Whose::Usage),
    ("exa_usage_log", Whose::Usage),
    ("free_allowances", Whose::Everybodys),
    ("organization_member_usage", Whose::Organization),
    ("organization_members", Whose::Organization),
    ("spend_alert_episodes", Whose::Owner),
    ("spend_alert_settings", Whose::Owner),
    ("spend_alert_states", Whose::Owner),
    ("spend_daily_totals", Whose::Owner),
    ("spend_degraded_intervals", Whose::Everybodys),
    ("spend_dimensions", Whose::Dimension),
    ("spend_drivers_hourly", Whose::Owner),
    ("spend_entries", Whose::Owner),
    ("spend_hourly", Whose::Owner),
    ("spend_hourly_drivers", Whose::Owner),
    ("spend_hourly_totals", Whose::Owner),
    ("spend_log", Whose::Owner),
    ("unposted_entries", Whose::Owner),
    ("unposted_spend", Whose::Owner),
];

/// Whom a user answers for: themselves, and organizations.
const ANSWERS: [(&str, &str); 4] =
    [("ann", "acme"), ("bob", "acme"), ("cat", "none"), ("dan", "umbrella")];

fn condition(relation: &str, whose: &Whose, user: &str, organization: &str) -> String {
    let owner = format!(
        "(owner_kind = 'user' AND owner_id = '{user}' OR owner_kind = 'organization' AND owner_id = '{organization}')"
    );
    match whose {
        Whose::Owner => owner,
        Whose::Usage => format!(
            "CASE WHEN organization_id IS NULL THEN user_id = '{user}' ELSE organization_id = '{organization}' END"
        ),
        Whose::User => format!("user_id = '{user}'"),
        Whose::Organization => format!("organization_id = '{organization}'"),
        Whose::Dimension => format!(
            "dimension_id IN (SELECT dimension_id FROM exa_billing.spend_hourly_drivers WHERE {owner}
                              UNION ALL SELECT dimension_id FROM exa_billing.unposted_spend WHERE {owner})"
        ),
        Whose::Everybodys if relation == "free_allowances" => {
            format!("(user_id IS NULL OR user_id = '{user}')")
        }
        Whose::Everybodys => format!("(owner_kind IS NULL OR {owner})"),
    }
}

#[test]
fn an_end_user_reads_their_own_rows_and_those_of_the_organizations_they_manage() {
    let mut world = World::new();
    for (user, organization) in ANSWERS {
        let mut client = world.serving(user);
        for (relation, whose) in &READABLE {
            let shown = rows_of(&mut client, relation, "true");
            let condition = condition(relation, whose, user, organization);
            let mut expected = rows_of(&mut world.admin, relation, &condition);
            if *relation == "exa_monthly_usage_current" {
                // What another member's own allowance is, is that member's.
                expected = texts(
                    &mut world.admin,
                    &format!(
                        "SELECT row(user_id, organization_id, month, total_cost_microdollars,
                                total_charged_microdollars, request_count,
                                CASE user_id WHEN '{user}' THEN free_allowance_microdollars END)::text
                         FROM exa_billing.{relation} WHERE {condition} ORDER BY 1"
                    ),
                );
            }
            assert_eq!(shown, expected, "{user}: {relation}");
            let all = rows_of(&mut world.admin, relation, "true");
            let is_plain = matches!(whose, Whose::Organization) && organization == "none";
            assert!(shown.len() < all.len(), "{user}: {relation} hides nothing");
            assert_eq!(shown.is_empty(), is_plain, "{user}: {relation}");
        }
    }
    assert_no_violations(&mut world.admin);
}

#[test]
fn everything_else_is_not_granted_to_end_users() {
    let mut world = World::new();
    let mut client = world.serving("ann");
    let mut refused = Vec::new();
    for relation in world.relations() {
        if READABLE.iter().any(|(readable, _)| *readable == relation) {
            continue;
        }
        let error = error_of(&mut client, &format!("SELECT FROM exa_billing.{relation}"));
        assert_eq!(error.code, "42501", "{relation}");
        refused.push(relation);
    }
    for table in
        ["idempotency_keys", "access_grants", "notification_deliveries", "evaluation_queue"]
    {
        assert!(refused.iter().any(|relation| relation == table), "{table}");
    }
    let partitions = texts(
        &mut world.admin,
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'exa_billing'::regnamespace
         AND relispartition AND relkind = 'r'",
    );
    assert!(partitions.len() > 20, "{partitions:?}");
    for partition in partitions {
        let error = error_of(&mut client, &format!("SELECT FROM {partition}"));
        assert_eq!(error.code, "42501", "{partition}");
    }
    let tables = texts(
        &mut world.admin,
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'exa_billing'::regnamespace
         AND relkind IN ('r', 'p')",
    );
    for table in tables {
        for statement in [
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
            format!("SELECT FROM {table} FOR UPDATE"),
        ] {
            assert_eq!(error_of(&mut client, &statement).code, "42501", "{statement}");
        }
    }
}

/// Every reading function that end users may call, of an owner.
fn answers(client: &mut Client, at: &str, kind: &str, id: &str) -> Vec<String> {
    let (owner, from) =
        (format!("'{kind}', '{id}'"), format!("timestamptz '{at}' - interval '1 day'"));
    let hour = format!("date_trunc('hour', timestamptz '{at}', 'UTC')");
    let calls = [
        format!("account_balance({owner}, '{at}')"),
        format!("account_statement({owner}, {from}, '{at}')"),
        format!("credit_blocks({owner}, '{at}')"),
        format!("exa_monthly_usage('{id}', timestamptz '{at}'::date)"),
        format!("rolling_spend({owner}, '1 day', '{at}')"),
        format!("spend_by_hour({owner}, {hour} - interval '5 hours', {hour} + interval '1 hour')"),
        format!("spend_series({owner}, '24h', '{at}')"),
        format!("top_spend_drivers({owner}, {from}, '{at}')"),
        format!("spend_evidence({owner}, '24h', '{at}')"),
        format!("spend_alert_settings({owner})"),
        format!("cost_insight_activity({owner})"),
        format!("cost_insights_attention({owner})"),
        format!("cost_insights_overview({owner}, '{at}')"),
    ];
    let call = |call: &String| {
        texts(client, &format!("SELECT f::text FROM exa_billing.{call} AS f"))
            .iter()
            .map(|line| {
                format!("{} {}", call.split('(').next().unwrap_or(call), line.replace(id, "*"))
            })
            .collect::<Vec<_>>()
    };
    let mut client_calls = call;
    calls.iter().flat_map(&mut client_calls).collect()
}

#[test]
fn functions_tell_an_end_user_of_those_they_answer_for_and_of_others_as_of_nobody() {
    let mut world = World::new();
    let at = world.at.clone();
    let without_months = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| !line.starts_with("exa_monthly_usage")).collect()
    };
    for (user, organization) in ANSWERS {
        let mut client = world.serving(user);
        for (kind, id) in [
            ("user", "ann"),
            ("user", "bob"),
            ("user", "cat"),
            ("user", "dan"),
            ("organization", "acme"),
            ("organization", "umbrella"),
        ] {
            let shown = without_months(answers(&mut client, &at, kind, id));
            let is_theirs = id == user || id == organization;
            let known = without_months(answers(&mut world.admin, &at, kind, id));
            let unknown = without_months(answers(&mut world.admin, &at, kind, "nobody-at-all"));
            assert_ne!(known, unknown);
            assert_same(
                &format!("{user}: {id}"),
                if is_theirs { &known } else { &unknown },
                &shown,
            );
        }
    }
}

/// A month of a user over all contexts is the part of it that the reader may see.
#[test]
fn a_month_is_what_the_reader_may_see_of_it() {
    let world = World::new();
    let requests = |reader: &str, user: &str| -> i64 {
        let mut client = world.serving(reader);
        let sql = format!(
            "SELECT request_count FROM exa_billing.exa_monthly_usage('{user}', timestamptz '{}'::date)",
            world.at
        );
        one(&mut client, &sql, &[])
    };
    // Whatever was recorded in the month before is in another one.
    let mut admin = world.db.client();
    let recorded = |admin: &mut Client, user: &str, contexts: &str| -> i64 {
        one(
            admin,
            &format!(
                "SELECT count(*) FROM exa_billing.exa_usage_log, instant WHERE user_id = '{user}' AND {contexts}
                 AND date_trunc('month', created_at, 'UTC') = date_trunc('month', at, 'UTC')"
            ),
            &[],
        )
    };
    let cases = [
        ("ann", "ann", "true"),
        ("bob", "bob", "true"),
        // A plain member sees nothing of the organization, not even their own part.
        ("cat", "cat", "organization_id IS NULL"),
        ("ann", "cat", "organization_id = 'acme'"),
        ("dan", "cat", "organization_id = 'umbrella'"),
        ("dan", "ann", "false"),
    ];
    for (reader, user, contexts) in cases {
        assert_eq!(
            requests(reader, user),
            recorded(&mut admin, user, contexts),
            "{reader}: {user}"
        );
    }
}

#[test]
fn nobody_sees_anything() {
    let mut world = World::new();
    let mut client = world.as_role("application");
    run_sql(&mut client, &format!("SET ROLE {}", world.role("web")));
    let mut hand = world.as_role("hand");
    let at = world.at.clone();
    for (relation, _) in &READABLE {
        // What is said of everybody neither: it is said to end users.
        assert_eq!(rows_of(&mut client, relation, "true"), [""; 0], "{relation}");
    }
    let nobody = answers(&mut world.admin, &at, "user", "nobody-at-all");
    assert_same("functions", &nobody, &answers(&mut client, &at, "user", "ann"));
    // SELECT alone shows nothing, of tables as of partitions.
    let everything = texts(
        &mut world.admin,
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'exa_billing'::regnamespace
         AND relkind IN ('r', 'p', 'v') AND relname <> 'health'",
    );
    for relation in everything {
        let rows: i64 = one(&mut hand, &format!("SELECT count(*) FROM {relation}"), &[]);
        assert_eq!(rows, 0, "{relation}");
    }
    // The checks of health are always there; of what waits they have nothing to tell.
    let told = "SELECT name || ': ' || figure FROM exa_billing.health
                WHERE name ~ '^(unposted|skipped|blocked|evaluation|deliver|coverage)' AND figure !~ '^0'
                   OR concat(figure, what_to_do) ~ 'ann|acme|umbrella'";
    assert_eq!(texts(&mut hand, told), [""; 0]);
    let waiting = "SELECT figure FROM exa_billing.health WHERE name = 'unposted rows'";
    assert_ne!(
        one::<String>(&mut world.admin, waiting, &[]),
        one::<String>(&mut hand, waiting, &[])
    );
}

/// What staff read and what their functions do is the same with row security as without.
#[test]
fn staff_see_and_do_everything_still() {
    let mut world = World::without_policies();
    let at = world.at.clone();
    let everything = |world: &mut World, kind: &str| {
        let mut client = world.as_role(kind);
        let mut lines = figures(&mut client);
        for relation in world.relations() {
            // Who was granted what, and which texts were applied, is to change; health has a clock.
            if !["access_grants", "applied_scripts", "health"].contains(&relation.as_str()) {
                lines.extend(rows_of(&mut client, &relation, "true"));
            }
        }
        for id in ["ann", "dan"] {
            lines.extend(answers(&mut client, &at, "user", id));
        }
        lines.extend(answers(&mut client, &at, "organization", "acme"));
        lines
    };
    let before = STAFF.map(|kind| everything(&mut world, kind));
    assert!(before.iter().all(|lines| lines.len() > 200));
    world.enable();
    for (kind, before) in STAFF.into_iter().zip(before) {
        assert_same(kind, &before, &everything(&mut world, kind));
    }
    for kind in ["operator", "auditor"] {
        let mut client = world.as_role(kind);
        assert_no_violations(&mut client);
        let mismatches = "SELECT m::text FROM exa_billing.reconcile_rollups(date_trunc('hour', now(), 'UTC') - interval '1 day', date_trunc('hour', now(), 'UTC')) AS m";
        assert_eq!(texts(&mut client, mismatches), [""; 0], "{kind}");
    }
    run_sql(
        &mut world.as_role("application"),
        "SELECT exa_billing.record_exa_usage('ann', '/search', 1001, 'acme', 'key-1');
         SELECT exa_billing.record_exa_usage('eve', '/search', 99000);
         SELECT exa_billing.record_spend('user', 'eve', 5, 'variable', 's', 'p');
         SELECT exa_billing.grant_credit('user', 'eve', 5000, now() - interval '1 hour', created_at => now() - interval '1 day');
         SELECT exa_billing.check_exa_usage('eve')",
    );
    let mut operator = world.as_role("operator");
    run_sql(
        &mut operator,
        "SELECT exa_billing.post_spend(); SELECT exa_billing.expire_due_credits();
         SELECT exa_billing.recompute_user_balances('eve'), exa_billing.recompute_organization_balances('acme');
         SELECT exa_billing.rebuild_rollups('user', 'eve', '2026-01-01Z', '2040-01-01Z');
         SELECT exa_billing.maintain_partitions(); SELECT exa_billing.adjust_credit('user', 'eve', 7, 'why')",
    );
    run_sql(&mut operator, "CALL exa_billing.recompute_all_balances(dry_run => false)");
    let replayed = "SELECT is_replay FROM exa_billing.record_exa_usage('ann', '/search', 1001, 'acme', 'key-1')";
    assert!(one::<bool>(&mut world.as_role("application"), replayed, &[]));
    assert_no_violations(&mut operator);
    assert_no_violations(&mut world.admin);
}

/// A role that is both sees what staff see; members see what the role they belong to sees.
#[test]
fn staff_stay_staff_whatever_else_they_are() {
    let mut world = World::new();
    for role in ["both", "member", "deaf"] {
        world.create_role(role);
    }
    let (both, member, deaf) = (world.role("both"), world.role("member"), world.role("deaf"));
    let auditor = world.role("auditor");
    run_sql(
        &mut world.admin,
        &format!(
            "SELECT exa_billing.grant_end_user('{both}'), exa_billing.grant_auditor('{both}');
             GRANT {auditor} TO {member}; ALTER ROLE {deaf} NOINHERIT; GRANT {auditor} TO {deaf}"
        ),
    );
    let all = rows_of(&mut world.admin, "accounts", "true");
    for role in ["both", "member"] {
        assert_eq!(rows_of(&mut world.as_role(role), "accounts", "true"), all, "{role}");
    }
    let mut client = world.as_role("deaf");
    assert_eq!(error_of(&mut client, "SELECT FROM exa_billing.accounts").code, "42501");
    run_sql(&mut client, &format!("SET ROLE {auditor}"));
    assert_eq!(rows_of(&mut client, "accounts", "true"), all);
}
