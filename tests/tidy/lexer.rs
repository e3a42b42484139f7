//! Tells code, comments and texts apart, well enough for the house rules.

/// What a character belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Text,
}

/// A source file in two views that keep every line where it is.
pub struct Views {
    /// Without comments and without what stands between quotes.
    pub code: String,
    /// Only what stands between quotes.
    pub texts: String,
}

pub fn rust(source: &str) -> Views {
    views(source, rust_token)
}

/// For SQL the texts are of no interest; names in double quotes count as code.
pub fn sql_code(source: &str) -> String {
    views(source, sql_token).code
}

/// `token` says how many characters from the start of the rest belong together, and to what.
fn views(source: &str, token: fn(&[char], Option<char>) -> (usize, Part)) -> Views {
    let all: Vec<char> = source.chars().collect();
    let (mut code, mut texts) = (String::new(), String::new());
    let (mut at, mut before) = (0, None);
    while at < all.len() {
        let (length, part) = token(&all[at..], before);
        for &c in &all[at..at + length] {
            let blank = if c == '\n' { '\n' } else { ' ' };
            code.push(if part == Part::Code { c } else { blank });
            texts.push(if part == Part::Text { c } else { blank });
        }
        at += length;
        before = Some(all[at - 1]);
    }
    Views { code, texts }
}

fn starts(rest: &[char], with: &str) -> bool {
    with.chars().enumerate().all(|(i, c)| rest.get(i) == Some(&c))
}

/// The length up to and including `end`, or to the end of everything.
fn through(rest: &[char], from: usize, end: &str) -> usize {
    (from..rest.len()).find(|&i| starts(&rest[i..], end)).map_or(rest.len(), |i| i + end.len())
}

fn line(rest: &[char]) -> usize {
    rest.iter().position(|&c| c == '\n').unwrap_or(rest.len())
}

fn nested_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if starts(&rest[at..], "/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if starts(&rest[at..], "*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn rust_token(rest: &[char], before: Option<char>) -> (usize, Part) {
    if starts(rest, "//") {
        return (line(rest), Part::Comment);
    }
    if starts(rest, "/*") {
        return (nested_comment(rest), Part::Comment);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest[0] == '"' {
        return (quoted(rest, '"'), Part::Text);
    }
    if rest[0] == 'r' && !in_word {
        let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
        if rest.get(1 + hashes) == Some(&'"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return (through(rest, 2 + hashes, &end), Part::Text);
        }
    }
    // A quote begins a character or a lifetime; only a character ends with another.
    if rest[0] == '\'' && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'')) {
        return (quoted(rest, '\''), Part::Text);
    }
    (1, Part::Code)
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn sql_token(rest: &[char], _before: Option<char>) -> (usize, Part) {
    if starts(rest, "--") {
        return (line(rest), Part::Comment);
    }
    if starts(rest, "/*") {
        return (nested_comment(rest), Part::Comment);
    }
    if rest[0] == '\'' {
        return (through(rest, 1, "'"), Part::Text);
    }
    (1, Part::Code)
}

/// The code without its `#[cfg(test)]` items, line by line as before.
pub fn without_tests(code: &str) -> String {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut kept = code.to_owned();
    while let Some(start) = kept.find(ATTRIBUTE) {
        let after = start + ATTRIBUTE.len();
        let body = kept[after..].find(['{', ';']).map_or(kept.len(), |i| after + i);
        let end = if kept[body..].starts_with('{') { closing_brace(&kept, body) } else { body };
        let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
        let blanked: String = kept[start..end].chars().map(blank).collect();
        kept.replace_range(start..end, &blanked);
    }
    kept
}

fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + i + 1;
        }
    }
    code.len()
}

#[test]
fn code_comments_and_texts_are_told_apart() {
    let source = "let a = \"x // \\\" y\"; // unsafe\nlet b = r#\"in \" side\"#; /* a /* b */ c */ let c = '\"';\nfn f<'a>(d: &'a str) {}";
    let views = rust(source);
    assert!(views.code.contains("let a =") && views.code.contains("fn f<'a>(d: &'a str) {}"));
    for gone in ["x //", "unsafe", "side", "b */", "\""] {
        assert!(!views.code.contains(gone), "{gone}: {}", views.code);
    }
    assert!(views.texts.contains("x // \\\" y") && views.texts.contains("in \" side"));
    assert!(!views.texts.contains("unsafe") && !views.texts.contains("let"));
    assert_eq!(views.code.lines().count(), 3);
    assert_eq!(sql_code("a 'it''s' b -- c\n/* d */ \"e\""), "a         b     \n        \"e\"");
}

#[test]
fn tests_inside_a_source_file_are_left_out() {
    let source = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { c() }\n}\nfn d() {}\n#[cfg(test)]\nuse e;\nfn f() {}";
    let kept = without_tests(source);
    for there in ["fn a", "fn d", "fn f"] {
        assert!(kept.contains(there), "{there}");
    }
    assert!(!kept.contains("fn b") && !kept.contains("use e"));
    assert_eq!(kept.lines().count(), source.lines().count());
}
