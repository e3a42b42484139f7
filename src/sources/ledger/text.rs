//! SQL over an attached table. Names come from the catalog and are quoted, values are quoted
//! literals: nothing of a `column_map` gets into a statement as SQL.

use super::mapping::{Column, ColumnType, Condition, Mapping, Operator, Part};
use crate::money::MAX_AMOUNT_MICRODOLLARS;
use crate::owner::{Owner, OwnerKind};
use uuid::Uuid;

/// Which rows are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of a transition table, whatever is wrong with them: their writer must hear of it.
    Written,
    /// Those in a window, also with an amount that no charge can have.
    Present,
    /// Those in a window that are charges.
    Charges,
}

/// Whose rows are asked for: the id, or the ids, are `$4`.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    Everybodys,
    One(&'a Owner),
    /// Several owners of one kind.
    Several(OwnerKind, &'a [&'a str]),
}

impl<'a> Whose<'a> {
    pub fn of(owner: Option<&'a Owner>) -> Self {
        owner.map_or(Whose::Everybodys, Whose::One)
    }

    pub fn owner(self) -> Option<&'a Owner> {
        match self {
            Whose::One(owner) => Some(owner),
            _ => None,
        }
    }
}

/// The rows of an attached table or of a transition table that are charges, as a subquery with the
/// columns sign, owner_kind, owner_id, actor_user_id, amount, created_at and the four dimensions.
///
/// `$1` is the instant from which rows count (null: all do); with a window, `$2` and `$3` are its
/// start and end, and `$4` is as `Whose` says.
pub struct Rows<'a> {
    pub mapping: &'a Mapping,
    /// The table, quoted.
    pub relation: &'a str,
    pub sign: i32,
    pub scope: Scope,
    pub whose: Whose<'a>,
}

impl Rows<'_> {
    pub fn sql(&self) -> String {
        let map = self.mapping;
        let (user, organization) = (text(&map.user_id), text(&map.organization_id));
        let amount = format!("{}::bigint", name(&map.amount));
        let (amount, is_spend) = if map.negate {
            // The least bigint has no opposite; what is put in its place is too large all the same.
            (format!("-greatest({amount}, -{})", i64::MAX), format!("{amount} < 0"))
        } else {
            (amount.clone(), format!("{amount} > 0"))
        };
        let created_at = name(&map.created_at);
        let window = format!(
            "($1 IS NULL OR {created_at} >= $1) AND {created_at} >= $2 AND {created_at} < $3"
        );
        let counts = match self.scope {
            // A time that is none is not early.
            Scope::Written => {
                format!("coalesce({created_at} >= $1 OR NOT isfinite({created_at}), true)")
            }
            Scope::Present => window,
            Scope::Charges => format!(
                "{window} AND {} BETWEEN -{MAX_AMOUNT_MICRODOLLARS} AND {MAX_AMOUNT_MICRODOLLARS}",
                name(&map.amount)
            ),
        };
        let mut conditions = vec![is_spend, counts];
        conditions.extend(owned_by(map, self.whose));
        conditions.extend(map.conditions.iter().map(condition));
        format!(
            "SELECT {} AS sign, \
             CASE WHEN {organization} IS NULL THEN 'user' ELSE 'organization' END AS owner_kind, \
             coalesce({organization}, {user}) AS owner_id, \
             CASE WHEN {organization} IS NOT NULL THEN {user} END AS actor_user_id, \
             {amount} AS amount, {created_at} AS created_at, \
             {} AS product_key, {} AS feature_key, {} AS model_or_plan_key, {} AS provider_key \
             FROM {} AS r WHERE {}",
            self.sign,
            text(&map.product_key),
            text(&map.feature_key),
            text(&map.model_or_plan_key),
            text(&map.provider_key),
            self.relation,
            conditions.join(" AND ")
        )
    }
}

fn name(column: &Column) -> String {
    format!("r.{}", quoted_name(&column.name))
}

/// A part of a charge. In the books texts are equal when their bytes are, whatever the collations
/// of the columns say, and columns of different collations go together.
fn text(part: &Part) -> String {
    let plain = |value: String| format!("{value}::text COLLATE \"C\"");
    match part {
        Part::Columns(columns) if columns.len() == 1 => plain(name(&columns[0])),
        Part::Columns(columns) => {
            let texts: Vec<String> = columns.iter().map(|column| plain(name(column))).collect();
            format!("coalesce({})", texts.join(", "))
        }
        Part::Value(Some(value)) => plain(quoted_literal(value)),
        Part::Value(None) => plain("NULL".to_owned()),
    }
}

/// The condition on the owner, in a form that an index on the column can serve.
fn owned_by(map: &Mapping, whose: Whose) -> Option<String> {
    let kind = match whose {
        Whose::Everybodys => return None,
        Whose::One(owner) => owner.kind,
        Whose::Several(kind, _) => kind,
    };
    Some(match kind {
        OwnerKind::Organization => equals(&map.organization_id, whose),
        OwnerKind::User => {
            let no_organization = match &map.organization_id {
                Part::Columns(columns) => columns
                    .iter()
                    .map(|column| format!("{} IS NULL", name(column)))
                    .collect::<Vec<_>>()
                    .join(" AND "),
                Part::Value(value) => value.is_none().to_string(),
            };
            format!("{no_organization} AND {}", equals(&map.user_id, whose))
        }
    })
}

fn equals(part: &Part, whose: Whose) -> String {
    let (wanted, wanted_uuid) = match whose {
        Whose::Several(..) => ("ANY ($4)", "ANY ($4::uuid[])"),
        _ => ("$4", "$4::uuid"),
    };
    match part {
        Part::Columns(columns) if is_uuid(part) => match whose {
            Whose::One(owner) if !is_spelled_as_uuid(&owner.id) => "false".to_owned(),
            _ => format!("{} = {wanted_uuid}", name(&columns[0])),
        },
        // The first condition is for an index, the second for a collation that equates texts.
        Part::Columns(columns) if columns.len() == 1 => {
            format!("{} = {wanted} AND {} = {wanted}", name(&columns[0]), text(part))
        }
        part => format!("{} = {wanted}", text(part)),
    }
}

fn is_uuid(part: &Part) -> bool {
    matches!(part, Part::Columns(columns) if columns.len() == 1 && columns[0].kind == ColumnType::Uuid)
}

/// Any other spelling of a uuid is another owner.
fn is_spelled_as_uuid(id: &str) -> bool {
    Uuid::parse_str(id).is_ok_and(|uuid| uuid.to_string() == id)
}

/// Those of the ids that a table with this mapping can have.
pub fn possible_ids<'a>(map: &Mapping, kind: OwnerKind, ids: &[&'a str]) -> Vec<&'a str> {
    let part = match kind {
        OwnerKind::User => &map.user_id,
        OwnerKind::Organization => &map.organization_id,
    };
    ids.iter().copied().filter(|id| !is_uuid(part) || is_spelled_as_uuid(id)).collect()
}

fn condition(condition: &Condition) -> String {
    let column = &condition.column;
    let is_words = column.kind.is_words();
    // The order of letters is that of bytes, whatever the database's collation.
    let collation = if is_words { " COLLATE \"C\"" } else { "" };
    let operand =
        if is_words { format!("{}::text{collation}", name(column)) } else { name(column) };
    let literals: Vec<String> = condition
        .values
        .iter()
        .map(|value| format!("{}::{}", quoted_literal(value), column.kind.sql()))
        .collect();
    let compared = |operator: &str| format!("{operand} {operator} {}", literals.join(", "));
    match condition.op {
        Operator::Equal => compared("="),
        Operator::NotEqual => compared("<>"),
        Operator::Less => compared("<"),
        Operator::AtMost => compared("<="),
        Operator::More => compared(">"),
        Operator::AtLeast => compared(">="),
        Operator::IsNull => format!("{} IS NULL", name(column)),
        Operator::IsNotNull => format!("{} IS NOT NULL", name(column)),
        Operator::StartsWith => format!("starts_with({operand}, {})", literals.join(", ")),
        Operator::In => format!("{operand} IN ({})", literals.join(", ")),
    }
}

/// A name as an SQL identifier, whatever is in it.
pub fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL literal, whatever standard_conforming_strings says.
pub fn quoted_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::super::column_map::parse;
    use super::super::mapping::TableColumn;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// SQL text as PostgreSQL's lexer takes it apart: each quoted name or literal with what it
    /// means, and all that is outside of quotes. None when a quote is not closed.
    fn lexed(sql: &str, standard_conforming_strings: bool) -> Option<(Vec<String>, String)> {
        let (mut quoted, mut outside) = (Vec::new(), String::new());
        let mut rest = sql.chars().peekable();
        while let Some(c) = rest.next() {
            if c != '\'' && c != '"' {
                outside.push(c);
                continue;
            }
            let is_escaped = c == '\'' && outside.ends_with('E');
            let has_escapes = is_escaped || c == '\'' && !standard_conforming_strings;
            if is_escaped {
                outside.pop();
            }
            let mut text = String::new();
            loop {
                match rest.next()? {
                    '\\' if has_escapes => text.push(rest.next()?),
                    end if end == c && rest.peek() == Some(&c) => text.extend(rest.next()),
                    end if end == c => break,
                    inside => text.push(inside),
                }
            }
            outside.push(c);
            quoted.push(text);
        }
        Some((quoted, outside))
    }

    /// Texts full of what could break out of quotes. PostgreSQL has no zero byte in a text.
    fn hostile() -> impl Strategy<Value = String> {
        let bits = prop::sample::select(vec![
            "'", "\"", "\\", "''", "\\'", "E'", "$1", "$$", "--", "/*", "*/", ";", "\n", "{rows}",
            "{cuts}", "é", "𝄞", "x", ")", "::text", " ", "U&'", "\u{2019}", "%",
        ]);
        prop_oneof![
            prop::collection::vec(bits, 1..12).prop_map(|bits| bits.concat()),
            "[^\\x00]{1,20}",
        ]
    }

    /// The SQL for a table whose names and values are these.
    fn sql_of(names: &[String], values: &[String], owner: Option<&Owner>) -> String {
        let types = ["text", "varchar", "int8", "timestamptz", "text"];
        let columns: Vec<TableColumn> = (1..)
            .zip(names.iter().zip(types))
            .map(|(number, (name, type_name))| TableColumn {
                // Each name is another one.
                name: format!("{number}{name}"),
                number,
                type_name: type_name.to_owned(),
            })
            .collect();
        let name = |n: usize| columns[n].name.as_str();
        let map = json!({
            "user_id": name(0), "organization_id": {"columns": [name(1), name(4)]}, "amount": name(2),
            "created_at": name(3), "product_key": {"value": values[0]}, "model_or_plan_key": name(4),
            "where": [{"column": name(0), "op": "in", "value": [values[1], values[0]]},
                      {"column": name(1), "op": "starts_with", "value": values[1]}]
        });
        let mapping = parse(&map, &columns).expect("a mapping");
        let whose = Whose::of(owner);
        Rows { mapping: &mapping, relation: "t", sign: 1, scope: Scope::Charges, whose }.sql()
    }

    fn five(text: &str) -> Vec<String> {
        vec![text.to_owned(); 5]
    }

    proptest! {
        #[test]
        fn a_quoted_text_is_one_token_that_means_the_text(text in hostile()) {
            let one = |quote: &str| Some((vec![text.clone()], quote.to_owned()));
            for standard in [true, false] {
                prop_assert_eq!(lexed(&quoted_literal(&text), standard), one("'"));
                prop_assert_eq!(lexed(&quoted_name(&text), standard), one("\""));
            }
        }

        #[test]
        fn names_and_values_never_get_out_of_their_quotes(
            names in prop::collection::vec(hostile(), 5), values in prop::collection::vec(hostile(), 2),
            id in hostile(),
        ) {
            for kind in [OwnerKind::User, OwnerKind::Organization] {
                let owner = Owner { kind, id: id.clone() };
                let plain = Owner { kind, id: "x".to_owned() };
                for (owner, plain) in [(None, None), (Some(&owner), Some(&plain))] {
                    let (sql, plain) = (sql_of(&names, &values, owner), sql_of(&five("a"), &five("x"), plain));
                    for standard in [true, false] {
                        let (quoted, outside) = lexed(&sql, standard).expect("closed quotes");
                        let (plainly_quoted, expected) = lexed(&plain, standard).expect("closed quotes");
                        prop_assert_eq!(&outside, &expected, "{}", sql);
                        prop_assert_eq!(quoted.len(), plainly_quoted.len());
                        for value in &values {
                            prop_assert!(quoted.contains(value));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_part_of_several_columns_is_the_first_that_is_not_null() {
        let column = |name: &str| Column { name: name.into(), number: 1, kind: ColumnType::Text };
        let of = |names: &[&str]| text(&Part::Columns(names.iter().map(|n| column(n)).collect()));
        assert_eq!(of(&["a"]), r#"r."a"::text COLLATE "C""#);
        assert_eq!(
            of(&["a", "b"]),
            r#"coalesce(r."a"::text COLLATE "C", r."b"::text COLLATE "C")"#
        );
        assert_eq!(text(&Part::Value(Some("x".to_owned()))), r#"'x'::text COLLATE "C""#);
        let owner = Owner { kind: OwnerKind::User, id: "u".to_owned() };
        let equal = |names: &[&str]| {
            let part = Part::Columns(names.iter().map(|n| column(n)).collect());
            equals(&part, Whose::One(&owner))
        };
        assert_eq!(equal(&["a"]), r#"r."a" = $4 AND r."a"::text COLLATE "C" = $4"#);
        assert_eq!(equal(&["a", "b"]), format!("{} = $4", of(&["a", "b"])));
        assert_eq!(Whose::of(Some(&owner)).owner(), Some(&owner));
        assert!(Whose::of(None).owner().is_none());
        assert!(Whose::Several(OwnerKind::User, &["u"]).owner().is_none());
    }

    #[test]
    fn an_owners_uuid_is_compared_as_one_and_in_one_spelling_only() {
        let column = TableColumn { name: "u".into(), number: 1, type_name: "uuid".into() };
        let amount = TableColumn { name: "c".into(), number: 2, type_name: "int4".into() };
        let at = TableColumn { name: "t".into(), number: 3, type_name: "timestamptz".into() };
        let map = json!({"user_id": "u", "organization_id": {"value": null}, "amount": "c", "created_at": "t"});
        let mapping = parse(&map, &[column, amount, at]).expect("a mapping");
        let condition = |id: &str| {
            let owner = Owner { kind: OwnerKind::User, id: id.to_owned() };
            owned_by(&mapping, Whose::One(&owner)).unwrap()
        };
        let uuid = "5c6a1b7e-0000-4000-8000-00000000000a";
        assert_eq!(condition(uuid), "true AND r.\"u\" = $4::uuid");
        let several = Whose::Several(OwnerKind::User, &[uuid]);
        assert_eq!(owned_by(&mapping, several).unwrap(), "true AND r.\"u\" = ANY ($4::uuid[])");
        let ids = [uuid, "5C6A1B7E-0000-4000-8000-00000000000A", "ann"];
        assert_eq!(possible_ids(&mapping, OwnerKind::User, &ids), [uuid]);
        assert_eq!(possible_ids(&mapping, OwnerKind::Organization, &ids), ids);
        for other in [
            "5C6A1B7E-0000-4000-8000-00000000000A",
            "5c6a1b7e00004000800000000000000a",
            "ann",
            "' OR true",
        ] {
            assert_eq!(condition(other), "true AND false");
        }
        let organization = Owner { kind: OwnerKind::Organization, id: "acme".to_owned() };
        assert_eq!(
            owned_by(&mapping, Whose::One(&organization)).unwrap(),
            "NULL::text COLLATE \"C\" = $4"
        );
    }
}
