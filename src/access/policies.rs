//! What end users see of each table, and the statements that put policies where they lack.

/// The policies bear these names on every table.
pub const STAFF: &str = "staff";
pub const OWN_ROWS: &str = "own_rows";

// Each part in a subquery of its own: it is then asked once per statement and not once per row, and
// what it answers can be looked up in an index.
macro_rules! user {
    () => {
        "(SELECT exa_billing.current_user_id())"
    };
}
macro_rules! managed {
    () => {
        "ARRAY(SELECT exa_billing.managed_organizations())"
    };
}
/// What is said of everybody is said to every end user, and to nobody else.
macro_rules! somebody {
    () => {
        concat!(user!(), " IS NOT NULL")
    };
}
/// One's own rows and few others first, in a form that an index answers without an OR, so that looking
/// for one row ends with the first; then exactly one's own.
macro_rules! of_owner {
    () => {
        concat!(
            "(owner_kind IN ('organization', 'user') AND owner_id = ANY (",
            managed!(),
            " || ",
            user!(),
            ")
             AND CASE owner_kind WHEN 'user' THEN owner_id = ",
            user!(),
            "
                                 ELSE owner_id = ANY (",
            managed!(),
            ") END)"
        )
    };
}

const OF_OWNER: &str = of_owner!();
/// Personal use is the user's; use for an organization is the organization's.
const OF_USAGE: &str = concat!(
    "(organization_id IS NULL AND user_id = ",
    user!(),
    " OR organization_id = ANY (",
    managed!(),
    "))"
);
const OF_ORGANIZATION: &str = concat!("organization_id = ANY (", managed!(), ")");

/// The tables of which end users see something, and what. Of all others they see nothing.
pub const OWN: [(&str, &str); 20] = [
    ("accounts", OF_OWNER),
    ("cost_insight_events", OF_OWNER),
    ("cost_suggestions", OF_OWNER),
    ("credit_transactions", OF_OWNER),
    ("exa_monthly_allowance", concat!("user_id = ", user!())),
    ("exa_monthly_usage", OF_USAGE),
    ("exa_usage_log", OF_USAGE),
    (
        "free_allowances",
        concat!("(user_id = ", user!(), " OR user_id IS NULL AND ", somebody!(), ")"),
    ),
    ("organization_member_usage", OF_ORGANIZATION),
    ("organization_members", OF_ORGANIZATION),
    ("spend_alert_episodes", OF_OWNER),
    ("spend_alert_settings", OF_OWNER),
    ("spend_alert_states", OF_OWNER),
    ("spend_daily_totals", OF_OWNER),
    (
        "spend_degraded_intervals",
        concat!("(", of_owner!(), " OR owner_kind IS NULL AND ", somebody!(), ")"),
    ),
    // What their own spend is for; both tables are under their own policies here too.
    (
        "spend_dimensions",
        "(EXISTS (SELECT FROM exa_billing.spend_hourly_drivers AS d
                  WHERE d.dimension_id = spend_dimensions.dimension_id)
          OR EXISTS (SELECT FROM exa_billing.unposted_spend AS q
                     WHERE q.dimension_id = spend_dimensions.dimension_id))",
    ),
    ("spend_hourly_drivers", OF_OWNER),
    ("spend_hourly_totals", OF_OWNER),
    ("spend_log", OF_OWNER),
    ("unposted_spend", OF_OWNER),
];

/// The views that end users may read besides; they show what the tables show.
pub const VIEWS: [&str; 6] = [
    "account_balances",
    "exa_monthly_usage_current",
    "spend_drivers_hourly",
    "spend_entries",
    "spend_hourly",
    "unposted_entries",
];

/// What all policies say, for telling whether a later version says something else.
pub fn text() -> String {
    OWN.iter().map(|(table, condition)| format!("{table}: {condition}\n")).collect()
}

/// A table of the books as it is.
pub struct Table {
    /// Quoted.
    pub name: String,
    pub is_partition: bool,
    pub has_row_security: bool,
    pub staff: Option<Present>,
    pub own_rows: Option<Present>,
}

/// A policy that is there under one of our names.
pub struct Present {
    /// The roles it is for, quoted and in order.
    pub roles: String,
    /// Whether it allows to read and does nothing else, as ours do.
    pub is_ours: bool,
}

/// For whom the policies are to be: names, quoted and in order, empty for nobody.
pub struct Roles {
    pub staff: String,
    pub end_users: String,
}

/// What has to be done to a table. Nothing where everything is as it should be, so that nobody waits
/// for a lock in vain; what a policy says is only written anew when our words for it have changed.
pub fn statements(table: &Table, roles: &Roles, is_new_text: bool) -> Vec<String> {
    let name = &table.name;
    let mut statements = Vec::new();
    if !table.has_row_security {
        statements.push(format!("ALTER TABLE exa_billing.{name} ENABLE ROW LEVEL SECURITY"));
    }
    // Nobody reads a partition directly, so it has row security and no policy.
    if table.is_partition {
        return statements;
    }
    let mut put =
        |policy: &str, present: &Option<Present>, roles: &str, condition: Option<&str>| {
            let on = format!("{policy} ON exa_billing.{name}");
            let wanted = condition.filter(|_| !roles.is_empty());
            let ours = present.as_ref().filter(|present| present.is_ours && wanted.is_some());
            if present.is_some() && ours.is_none() {
                statements.push(format!("DROP POLICY {on}"));
            }
            let Some(condition) = wanted else { return };
            match ours {
                None => statements
                    .push(format!("CREATE POLICY {on} FOR SELECT TO {roles} USING ({condition})")),
                Some(present) if is_new_text || present.roles != roles => {
                    let using =
                        if is_new_text { format!(" USING ({condition})") } else { String::new() };
                    statements.push(format!("ALTER POLICY {on} TO {roles}{using}"));
                }
                Some(_) => {}
            }
        };
    let own = OWN.iter().find(|(own, _)| own == name).map(|(_, condition)| *condition);
    put(STAFF, &table.staff, &roles.staff, Some("true"));
    put(OWN_ROWS, &table.own_rows, &roles.end_users, own);
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKS: &str = concat!(
        include_str!("../../sql/migrations/0001_books.sql"),
        include_str!("../../sql/migrations/0002_alerts.sql"),
        include_str!("../../sql/migrations/0003_jobs.sql")
    );
    const SHOWN: &str = include_str!("../../sql/books/views.sql");

    fn table(name: &str) -> Table {
        Table {
            name: name.to_owned(),
            is_partition: false,
            has_row_security: true,
            staff: None,
            own_rows: None,
        }
    }

    fn present(roles: &str) -> Option<Present> {
        Some(Present { roles: roles.to_owned(), is_ours: true })
    }

    fn roles(staff: &str, end_users: &str) -> Roles {
        Roles { staff: staff.to_owned(), end_users: end_users.to_owned() }
    }

    #[test]
    fn what_is_named_exists_and_a_table_with_an_owner_has_the_owners_policy() {
        assert!(OWN.is_sorted_by(|one, next| one.0 < next.0));
        for (table, condition) in OWN {
            let (_, rest) =
                BOOKS.split_once(&format!("CREATE TABLE exa_billing.{table} (")).unwrap();
            let columns = rest.split_once(';').unwrap().0;
            let has_owner = columns.contains("owner_id text");
            assert_eq!(has_owner, condition.contains("owner_kind WHEN 'user'"), "{table}");
        }
        for view in VIEWS {
            assert!(SHOWN.contains(&format!("VIEW exa_billing.{view} ")), "{view}");
        }
    }

    #[test]
    fn the_text_of_all_policies_says_each_of_them() {
        let text = text();
        for (table, condition) in OWN {
            assert!(text.contains(&format!("{table}: {condition}\n")), "{table}");
        }
    }

    #[test]
    fn what_nobody_named_is_for_staff_only() {
        let made = statements(&table("idempotency_keys"), &roles("app", "web"), false);
        assert_eq!(
            made,
            ["CREATE POLICY staff ON exa_billing.idempotency_keys FOR SELECT TO app USING (true)"]
        );
    }

    #[test]
    fn a_table_that_is_as_it_should_be_is_left_alone() {
        let mut accounts = table("accounts");
        accounts.staff = present("app, ops");
        accounts.own_rows = present("web");
        assert!(statements(&accounts, &roles("app, ops", "web"), false).is_empty());
        let more = statements(&accounts, &roles("app", "web"), false);
        assert_eq!(more, ["ALTER POLICY staff ON exa_billing.accounts TO app"]);
        let renewed = statements(&accounts, &roles("app, ops", "web"), true);
        assert_eq!(renewed.len(), 2);
        assert!(
            renewed[1].starts_with("ALTER POLICY own_rows ON exa_billing.accounts TO web USING")
        );
        let nobody = statements(&accounts, &roles("app, ops", ""), false);
        assert_eq!(nobody, ["DROP POLICY own_rows ON exa_billing.accounts"]);
    }

    #[test]
    fn another_policy_under_our_name_is_replaced() {
        let mut keys = table("idempotency_keys");
        keys.staff = Some(Present { roles: "app".to_owned(), is_ours: false });
        keys.own_rows = present("web");
        let made = statements(&keys, &roles("app", "web"), false);
        assert_eq!(made.len(), 3);
        assert!(
            made[0].starts_with("DROP POLICY staff") && made[1].starts_with("CREATE POLICY staff")
        );
        assert!(made[2].starts_with("DROP POLICY own_rows"));
    }

    #[test]
    fn a_partition_has_row_security_and_no_policy() {
        let partition =
            Table { is_partition: true, has_row_security: false, ..table("spend_log_2026_11") };
        let made = statements(&partition, &roles("app", "web"), true);
        assert_eq!(made, ["ALTER TABLE exa_billing.spend_log_2026_11 ENABLE ROW LEVEL SECURITY"]);
    }
}
