//! Who an end user is, and that nobody becomes somebody else.

mod books_common;
mod common;
mod row_security_common;

use books_common::texts;
use common::{Server, error_of, one, run_sql};
use postgres::{Client, NoTls};
use row_security_common::World;

const SELF: &str = "SELECT coalesce(exa_billing.current_user_id(), '-')";

fn identity(client: &mut Client) -> String {
    one(client, SELF, &[])
}

fn accounts(client: &mut Client) -> Vec<String> {
    texts(client, "SELECT owner_id FROM exa_billing.accounts ORDER BY 1")
}

fn claims(client: &mut Client, claims: &str) {
    client
        .execute("SELECT set_config('request.jwt.claims', $1, false)", &[&claims])
        .expect("claims");
}

fn trusting(admin: &mut Client, role: &str) {
    run_sql(admin, &format!("ALTER ROLE {role} SET exa_billing.trust_jwt_claims = on"));
}

#[test]
fn behind_a_pool_the_application_says_whom_a_transaction_serves() {
    let world = World::new();
    let (web, mut client) = (world.role("web"), world.as_role("application"));
    assert_eq!(identity(&mut client), "-");
    for (user, shown) in [("ann", vec!["acme", "ann"]), ("cat", vec!["cat"]), ("eve", vec![])] {
        run_sql(
            &mut client,
            &format!("BEGIN; SET LOCAL exa_billing.user_id = '{user}'; SET LOCAL ROLE {web}"),
        );
        assert_eq!(identity(&mut client), user);
        assert_eq!(accounts(&mut client), shown);
        run_sql(&mut client, "COMMIT");
        assert_eq!(identity(&mut client), "-");
        assert_eq!(accounts(&mut client).len(), 6);
    }
    // What a pool does before it hands a session on.
    run_sql(&mut client, "SET exa_billing.user_id = 'ann'");
    run_sql(&mut client, "DISCARD ALL");
    assert_eq!(identity(&mut client), "-");
}

#[test]
fn managed_organizations_are_those_of_owners_and_billing_managers() {
    let mut world = World::new();
    run_sql(
        &mut world.admin,
        "SELECT exa_billing.set_organization_member('zoo', 'ann', 'billing_manager'),
                exa_billing.set_organization_member('ark', 'ann', 'member')",
    );
    let managed = "SELECT o FROM exa_billing.managed_organizations() AS o";
    for (user, expected) in
        [("ann", vec!["acme", "zoo"]), ("bob", vec!["acme"]), ("cat", vec![]), ("eve", vec![])]
    {
        assert_eq!(texts(&mut world.serving(user), managed), expected, "{user}");
    }
    run_sql(&mut world.admin, "SELECT exa_billing.remove_organization_member('acme', 'bob')");
    assert_eq!(texts(&mut world.serving("bob"), managed), [""; 0]);
    assert_eq!(accounts(&mut world.serving("bob")), ["bob"]);
    assert_eq!(texts(&mut world.admin, managed), [""; 0]);
}

/// The ways a session has of changing a setting.
fn settings(user: &str) -> Vec<String> {
    vec![
        format!("SET exa_billing.user_id = '{user}'"),
        format!("BEGIN; SET LOCAL exa_billing.user_id = '{user}'"),
        format!("SELECT set_config('exa_billing.user_id', '{user}', false)"),
        format!("SELECT set_config('exa_billing.user_id', '{user}', true)"),
        format!("UPDATE pg_settings SET setting = '{user}' WHERE name = 'exa_billing.user_id'"),
        format!("ALTER ROLE CURRENT_USER SET exa_billing.user_id = '{user}'"),
        format!("ALTER ROLE CURRENT_USER IN DATABASE $ SET exa_billing.user_id = '{user}'"),
        format!("ALTER DATABASE $ SET exa_billing.user_id = '{user}'"),
        format!("ALTER SYSTEM SET exa_billing.user_id = '{user}'"),
        format!(
            "CREATE FUNCTION pg_temp.become() RETURNS text LANGUAGE sql SET exa_billing.user_id = '{user}'
             AS 'SELECT exa_billing.current_user_id()'"
        ),
        "SET exa_billing.user_id TO DEFAULT".to_owned(),
        "RESET exa_billing.user_id".to_owned(),
        "SET exa_billing.trust_jwt_claims = on".to_owned(),
        "GRANT SET ON PARAMETER exa_billing.user_id TO CURRENT_USER".to_owned(),
    ]
}

#[test]
fn an_end_user_cannot_become_somebody_else() {
    let mut world = World::new();
    let name = world.db.name().to_owned();
    let mut client = world.serving("ann");
    for statement in settings("dan") {
        let code = error_of(&mut client, &statement.replace('$', &name)).code;
        assert_eq!(code, "42501", "{statement}");
        run_sql(&mut client, "ROLLBACK");
        assert_eq!((identity(&mut client), accounts(&mut client).len()), ("ann".to_owned(), 2));
    }
    // The claims are the session's to set, and count for nothing.
    claims(&mut client, r#"{"sub": "dan"}"#);
    assert_eq!(identity(&mut client), "ann");
    // Nothing is left of the identity after this, and nothing is shown.
    run_sql(&mut client, "RESET ALL");
    assert_eq!((identity(&mut client), accounts(&mut client).len()), ("-".to_owned(), 0));

    // Logged in directly, as nobody and as whom the superuser says.
    let web = world.role("web");
    let mut client = world.as_role("web");
    for statement in settings("dan") {
        let code = error_of(&mut client, &statement.replace('$', &name)).code;
        assert_eq!(code, "42501", "{statement}");
        run_sql(&mut client, "ROLLBACK");
    }
    let options = world.db.config().user(&web).options("-c exa_billing.user_id=dan").connect(NoTls);
    assert_eq!(
        options.err().and_then(|error| error.code().cloned()).expect("a refusal").code(),
        "42501"
    );
    run_sql(&mut world.admin, &format!("ALTER ROLE {web} SET exa_billing.user_id = 'cat'"));
    let mut client = world.as_role("web");
    assert_eq!(
        (identity(&mut client), accounts(&mut client)),
        ("cat".to_owned(), vec!["cat".to_owned()])
    );
    assert_eq!(error_of(&mut client, "SET exa_billing.user_id = 'dan'").code, "42501");
    let own = format!("ALTER ROLE {web} SET exa_billing.user_id = 'dan'");
    assert_eq!(error_of(&mut client, &own).code, "42501");
    let reset = format!("ALTER ROLE {web} RESET ALL");
    let _ = client.batch_execute(&reset);
    assert_ne!(identity(&mut world.as_role("web")), "dan");
}

/// The library is loaded by the first call, after what the session has set before.
#[test]
fn a_setting_from_before_the_library_came_is_not_believed() {
    let server = Server::start("late", &[("shared_preload_libraries", "")]);
    let world = {
        let mut world = World::of(server.database(), false);
        world.enable();
        world
    };
    let web = world.role("web");
    for setting in ["SET exa_billing.user_id = 'dan'", "SET exa_billing.trust_jwt_claims = on"] {
        let mut client = world.as_role("web");
        claims(&mut client, r#"{"sub": "dan"}"#);
        let _ = client.batch_execute(setting);
        assert_eq!(
            (identity(&mut client), accounts(&mut client).len()),
            ("-".to_owned(), 0),
            "{setting}"
        );
        assert_eq!(
            texts(
                &mut client,
                "SELECT managed_organizations FROM exa_billing.managed_organizations()"
            ),
            [""; 0]
        );
    }
    let mut client = world.as_role("web");
    let own = format!("ALTER ROLE {web} SET exa_billing.user_id = 'dan'");
    assert_eq!(error_of(&mut client, &own).code, "42501");
    let mut options = world.db.config();
    options.user(&web).options("-c exa_billing.user_id=dan");
    if let Ok(mut client) = options.connect(NoTls) {
        assert_eq!((identity(&mut client), accounts(&mut client).len()), ("-".to_owned(), 0));
    }
    // The application's is, whenever it was set.
    let mut client = world.as_role("application");
    run_sql(&mut client, &format!("SET exa_billing.user_id = 'ann'; SET ROLE {web}"));
    assert_eq!((identity(&mut client), accounts(&mut client).len()), ("ann".to_owned(), 2));
    drop(client);
    drop(world);
}

#[test]
fn a_trusted_token_names_the_end_user() {
    let mut world = World::new();
    let web = world.role("web");
    trusting(&mut world.admin, &web);
    let mut client = world.as_role("web");
    assert_eq!((identity(&mut client), accounts(&mut client).len()), ("-".to_owned(), 0));
    claims(&mut client, r#"{"sub": "ann", "role": "web", "aud": ["x"]}"#);
    assert_eq!((identity(&mut client), accounts(&mut client).len()), ("ann".to_owned(), 2));
    for nobody in ["", "{}", r#"{"role": "anon"}"#] {
        claims(&mut client, nobody);
        assert_eq!(
            (identity(&mut client), accounts(&mut client).len()),
            ("-".to_owned(), 0),
            "{nobody}"
        );
    }
    for doubtful in [
        " ",
        "ann",
        "null",
        "[]",
        r#""ann""#,
        r#"{"sub": null}"#,
        r#"{"sub": 7}"#,
        r#"{"sub": " ann"}"#,
        r#"{"sub": ""}"#,
        r#"{"sub": {"sub": "ann"}}"#,
    ] {
        claims(&mut client, doubtful);
        for reading in [
            SELF,
            "SELECT FROM exa_billing.accounts",
            "SELECT FROM exa_billing.spend_hourly",
            "SELECT exa_billing.account_balance('user', 'ann')",
            "SELECT exa_billing.managed_organizations()",
        ] {
            let error = error_of(&mut client, reading);
            assert_eq!(error.code, "42501", "{doubtful}: {reading}");
            assert!(error.message.contains("request.jwt.claims"), "{}", error.message);
        }
    }
}

#[test]
fn two_names_for_one_session_must_be_one() {
    let mut world = World::new();
    let (web, app) = (world.role("web"), world.role("application"));
    trusting(&mut world.admin, &app);
    let mut client = world.serving("ann");
    claims(&mut client, r#"{"sub": "ann"}"#);
    assert_eq!((identity(&mut client), accounts(&mut client).len()), ("ann".to_owned(), 2));
    claims(&mut client, r#"{"sub": "dan"}"#);
    for reading in [SELF, "SELECT FROM exa_billing.accounts"] {
        let error = error_of(&mut client, reading);
        assert_eq!(error.code, "42501");
        assert!(error.message.contains("name different users"), "{}", error.message);
    }
    claims(&mut client, "{}");
    assert_eq!(identity(&mut client), "ann");
    let _ = web;
}

#[test]
fn a_setting_that_is_no_users_id_is_refused() {
    let world = World::new();
    let mut client = world.as_role("application");
    for id in ["' ann'", "'ann '", "E'a\\x01'", "repeat('x', 256)"] {
        run_sql(&mut client, &format!("SELECT set_config('exa_billing.user_id', {id}, false)"));
        let error = error_of(&mut client, SELF);
        assert_eq!(error.code, "42501", "{id}");
        assert!(error.message.contains("exa_billing.user_id"), "{}", error.message);
    }
    run_sql(&mut client, "SET exa_billing.user_id = ''");
    assert_eq!(identity(&mut client), "-");
}

#[test]
fn only_applications_say_who_anybody_is() {
    let mut world = World::new();
    let holders = |world: &mut World| {
        texts(
            &mut world.admin,
            "SELECT grantee::regrole || CASE WHEN is_grantable THEN ' and gives it' ELSE '' END
             FROM pg_parameter_acl, aclexplode(paracl) WHERE parname LIKE 'exa\\_billing.%'
             ORDER BY 1",
        )
    };
    let name = world.db.name().to_owned();
    let found = holders(&mut world);
    let own: Vec<&String> = found.iter().filter(|role| role.starts_with(&name)).collect();
    assert_eq!(own, [&world.role("application")]);
    assert!(found.contains(&"exa_billing_owner and gives it".to_owned()), "{found:?}");
    assert!(!found.iter().any(|role| role.starts_with('-')), "PUBLIC: {found:?}");
    for role in ["operator", "auditor", "web", "hand"] {
        let error = error_of(&mut world.as_role(role), "SET exa_billing.user_id = 'ann'");
        assert_eq!(error.code, "42501", "{role}");
    }
    // What was taken away is given again with the rest.
    let app = world.role("application");
    run_sql(&mut world.admin, &format!("REVOKE SET ON PARAMETER exa_billing.user_id FROM {app}"));
    assert_eq!(
        error_of(&mut world.as_role("application"), "SET exa_billing.user_id = 'ann'").code,
        "42501"
    );
    run_sql(&mut world.admin, "SELECT exa_billing.setup()");
    run_sql(&mut world.as_role("application"), "SET exa_billing.user_id = 'ann'");
}
