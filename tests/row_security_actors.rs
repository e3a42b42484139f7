//! For whom functions act: an end user for nobody else, an application for whom it vouches.

mod books_common;
mod common;
mod row_security_common;

use books_common::{assert_no_violations, texts};
use common::{error_of, one, run_sql};
use postgres::Client;
use row_security_common::World;

/// A function that acts for a user, for an owner.
fn acting(kind: &str, id: &str, actor: &str) -> String {
    format!(
        "SELECT (exa_billing.update_spend_alert_settings('{kind}', '{id}', '{{}}', '{actor}'))::text"
    )
}

#[track_caller]
fn acts(client: &mut Client, kind: &str, id: &str, actor: &str) {
    run_sql(client, &acting(kind, id, actor));
}

#[track_caller]
fn is_refused(client: &mut Client, kind: &str, id: &str, actor: &str, why: &str) {
    let error = error_of(client, &acting(kind, id, actor));
    assert_eq!(error.code, "42501", "{kind} {id} {actor}: {}", error.message);
    assert!(error.message.contains(why), "{kind} {id} {actor}: {}", error.message);
}

const SOMEBODY_ELSE: &str = "actor_user_id is not the end user";
const NOT_THEIRS: &str = "does not answer for this";
const NOBODY: &str = "no end user";

#[test]
fn an_end_user_acts_as_themselves_for_who_they_answer_for() {
    let mut world = World::new();
    for (user, organization) in [("ann", "acme"), ("bob", "acme"), ("dan", "umbrella")] {
        let mut client = world.serving(user);
        acts(&mut client, "user", user, user);
        acts(&mut client, "organization", organization, user);
        is_refused(&mut client, "user", user, "cat", SOMEBODY_ELSE);
        is_refused(&mut client, "organization", organization, "cat", SOMEBODY_ELSE);
        is_refused(&mut client, "user", "cat", user, NOT_THEIRS);
        is_refused(&mut client, "user", organization, user, NOT_THEIRS);
        is_refused(&mut client, "organization", user, user, NOT_THEIRS);
        is_refused(&mut client, "organization", "no-such", user, NOT_THEIRS);
    }
    let mut cat = world.serving("cat");
    acts(&mut cat, "user", "cat", "cat");
    is_refused(&mut cat, "organization", "acme", "cat", NOT_THEIRS);
    // From the statement on in which somebody stops managing it.
    let mut bob = world.serving("bob");
    run_sql(
        &mut world.admin,
        "SELECT exa_billing.set_organization_member('acme', 'bob', 'member')",
    );
    is_refused(&mut bob, "organization", "acme", "bob", NOT_THEIRS);
    let bad = error_of(&mut bob, &acting("user", "bob", " bob"));
    assert_eq!(bad.code, "22023");
    assert_no_violations(&mut world.admin);
}

#[test]
fn without_an_identity_an_end_user_acts_for_nobody() {
    let mut world = World::new();
    let web = world.role("web");
    is_refused(&mut world.as_role("web"), "user", "ann", "ann", NOBODY);
    let mut client = world.as_role("application");
    run_sql(&mut client, &format!("SET ROLE {web}"));
    is_refused(&mut client, "user", "ann", "ann", NOBODY);
    let mut client = world.serving("ann");
    run_sql(&mut client, "RESET ALL");
    is_refused(&mut client, "user", "ann", "ann", NOBODY);
    // Whoever was given the function by hand is no application.
    is_refused(&mut world.as_role("hand"), "user", "ann", "ann", NOBODY);
    // Nor is an end user inside a function of the application's.
    let app = world.role("application");
    run_sql(
        &mut world.admin,
        &format!(
            "CREATE FUNCTION public.through() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ {} $$;
             ALTER FUNCTION public.through() OWNER TO {app}",
            acting("user", "ann", "ann")
        ),
    );
    let through = "SELECT public.through()";
    assert_eq!(error_of(&mut world.as_role("web"), through).code, "42501");
    assert_eq!(error_of(&mut world.serving("dan"), through).code, "42501");
    run_sql(&mut world.serving("ann"), through);
    run_sql(&mut world.as_role("application"), through);
}

#[test]
fn an_application_vouches_for_whom_it_names_until_it_serves_somebody() {
    let mut world = World::new();
    for role in ["application", "operator", "auditor"] {
        world.create_role(&format!("{role}_member"));
        let (role, member) = (world.role(role), world.role(&format!("{role}_member")));
        run_sql(
            &mut world.admin,
            &format!(
                "GRANT {role} TO {member}; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA exa_billing TO {role}"
            ),
        );
    }
    for role in ["application", "application_member"] {
        let mut client = world.as_role(role);
        acts(&mut client, "user", "ann", "dan");
        acts(&mut client, "organization", "acme", "nobody-known");
    }
    // Other staff vouch for nobody, whoever gave them the function.
    for role in ["operator", "auditor", "operator_member", "auditor_member"] {
        is_refused(&mut world.as_role(role), "user", "ann", "ann", NOBODY);
    }
    acts(&mut world.admin, "user", "ann", "dan");
    let mut client = world.as_role("application");
    run_sql(&mut client, "SET exa_billing.user_id = 'dan'");
    acts(&mut client, "user", "dan", "dan");
    is_refused(&mut client, "user", "ann", "dan", NOT_THEIRS);
    is_refused(&mut client, "user", "ann", "ann", SOMEBODY_ELSE);
    run_sql(&mut client, "RESET exa_billing.user_id");
    acts(&mut client, "user", "ann", "dan");
    run_sql(&mut world.admin, "SET exa_billing.user_id = 'dan'");
    is_refused(&mut world.admin, "user", "ann", "ann", SOMEBODY_ELSE);
    let mut client = world.as_role("application");
    run_sql(&mut client, "SET exa_billing.user_id = ' dan'");
    assert_eq!(one::<i32>(&mut world.admin, "SELECT 1", &[]), 1);
    is_refused(&mut client, "user", "dan", "dan", "exa_billing.user_id must not begin");
}

/// Rights that were taken away are gone here too.
#[test]
fn who_is_no_application_any_more_vouches_for_nobody() {
    let mut world = World::new();
    let app = world.role("application");
    let mut client = world.as_role("application");
    acts(&mut client, "user", "ann", "ann");
    run_sql(
        &mut world.admin,
        &format!(
            "REVOKE USAGE ON SCHEMA exa_billing FROM {app}; SELECT exa_billing.grant_end_user('{app}')"
        ),
    );
    is_refused(&mut client, "user", "ann", "ann", NOBODY);
}

/// Who may read everything and may act as an end user still changes nothing of anybody else.
#[test]
fn an_auditor_who_is_an_end_user_too_vouches_for_nobody() {
    let mut world = World::new();
    let auditor = world.role("auditor");
    run_sql(&mut world.admin, &format!("SELECT exa_billing.grant_end_user('{auditor}')"));
    is_refused(&mut world.as_role("auditor"), "user", "dan", "dan", NOBODY);
    run_sql(&mut world.admin, &format!("ALTER ROLE {auditor} SET exa_billing.user_id = 'ann'"));
    let mut client = world.as_role("auditor");
    is_refused(&mut client, "user", "dan", "dan", SOMEBODY_ELSE);
    acts(&mut client, "user", "ann", "ann");
}

/// What is put away with a call for each: function, argument and table.
const SEEN: [(&str, &str, &str); 2] = [
    ("acknowledge_spend_alert", "event_id", "spend_alert_episodes"),
    ("dismiss_cost_suggestion", "suggestion_id", "cost_suggestions"),
];

#[test]
fn end_users_put_away_what_they_answer_for_and_learn_of_nothing_else() {
    let mut world = World::new();
    let find = "SELECT DISTINCT owner_id FROM exa_billing.cost_insight_events
                WHERE event_type IN ('alert_reviewed', 'suggestion_dismissed') ORDER BY 1";
    for (function, id, table) in SEEN {
        let of = |admin: &mut Client, owner: &str| -> String {
            let sql =
                format!("SELECT {id}::text FROM exa_billing.{table} WHERE owner_id = '{owner}'");
            one(admin, &sql, &[])
        };
        let call =
            |id: &str, actor: &str| format!("SELECT exa_billing.{function}('{id}', '{actor}')");
        let known = ["ann", "bob", "cat", "dan", "acme", "umbrella"]
            .map(|owner| (owner, of(&mut world.admin, owner)));
        let none = "01234567-89ab-7def-8123-456789abcdef";
        // Not even that it is there: a plain member, a stranger, and of what is not there.
        for (user, theirs) in
            [("ann", ["ann", "acme"]), ("cat", ["cat", "cat"]), ("dan", ["dan", "umbrella"])]
        {
            let mut client = world.serving(user);
            let unknown = error_of(&mut client, &call(none, user));
            assert_eq!(unknown.code, "P0002", "{function}");
            for (owner, id) in &known {
                if theirs.contains(owner) {
                    let error = error_of(&mut client, &call(id, "bob"));
                    assert_eq!(error.code, "42501", "{function} {user} {owner}");
                    continue;
                }
                let error = error_of(&mut client, &call(id, user));
                assert_eq!(error.code, "P0002", "{function} {user} {owner}");
                assert_eq!(error.message, unknown.message, "{function} {user} {owner}");
                assert_eq!(
                    error.detail,
                    unknown.detail.as_ref().map(|detail| detail.replace(none, id))
                );
                assert_eq!(error.hint, unknown.hint);
            }
        }
        // Nobody learns nothing at all.
        let mut nobody = world.as_role("web");
        for id in [none, &known[0].1] {
            let error = error_of(&mut nobody, &call(id, "ann"));
            assert_eq!((error.code.as_str(), error.message.contains(NOBODY)), ("42501", true));
        }
        for (user, owner) in [("ann", "ann"), ("bob", "acme"), ("cat", "cat")] {
            let id = of(&mut world.admin, owner);
            let mut client = world.serving(user);
            assert!(one::<bool>(&mut client, &call(&id, user), &[]), "{function} {user} {owner}");
            assert!(!one::<bool>(&mut client, &call(&id, user), &[]), "{function} {user} {owner}");
        }
    }
    assert_eq!(texts(&mut world.admin, find), ["acme", "ann", "cat"]);
}

/// A change that is dated back would not be among what happened of late.
#[test]
fn an_end_user_changes_settings_now() {
    let world = World::new();
    let off = |as_of: &str| {
        format!(
            "SELECT (exa_billing.update_spend_alert_settings('organization', 'acme',
                        '{{\"spend_alerts_enabled\": false}}', 'bob', {as_of})).spend_alerts_enabled"
        )
    };
    let mut bob = world.serving("bob");
    for as_of in ["'2020-01-01Z'", "now() - interval '1 microsecond'", "'-infinity'"] {
        let error = error_of(&mut bob, &off(as_of));
        let expected = if as_of.contains("infinity") { "22023" } else { "42501" };
        assert_eq!(error.code, expected, "{as_of}: {}", error.message);
    }
    assert!(!one::<bool>(&mut bob, &off("now()"), &[]));
    let told = "SELECT event_type || ' ' || actor_user_id
                FROM exa_billing.cost_insight_activity('organization', 'acme') LIMIT 1";
    assert_eq!(texts(&mut world.serving("ann"), told), ["disabled bob"]);
    // An application may bring in what was changed before.
    let on = off("now() - interval '1 day'").replace("false", "true");
    assert!(one::<bool>(&mut world.as_role("application"), &on, &[]));
}
