//! A small Rust lexer for the lexical rules: it blanks what is not code and finds where functions begin and end.
//!
//! It does not parse. Blanked text keeps its length in lines, so every finding can name its line.

/// The source with the contents of comments, strings and character literals replaced by spaces.
pub fn blank(source: &str) -> String {
    let src: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < src.len() {
        let end = not_code_until(&src, at);
        if end == at {
            out.push(src[at]);
            at += 1;
        } else {
            out.extend(src[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment, string or character literal that starts at `at` ends; `at` itself if none starts there.
fn not_code_until(src: &[char], at: usize) -> usize {
    let follows_word = at > 0 && is_word(src[at - 1]);
    match src[at] {
        '/' if src.get(at + 1) == Some(&'/') => line_end(src, at),
        '/' if src.get(at + 1) == Some(&'*') => block_comment_end(src, at),
        '"' => string_end(src, at),
        '\'' => char_end(src, at),
        'r' if !follows_word => raw_string_end(src, at, at + 1),
        'b' | 'c' if !follows_word => match src.get(at + 1) {
            Some('"') => string_end(src, at + 1),
            Some('\'') => char_end(src, at + 1),
            Some('r') => raw_string_end(src, at, at + 2),
            _ => at,
        },
        _ => at,
    }
}

fn line_end(src: &[char], at: usize) -> usize {
    src[at..]
        .iter()
        .position(|&c| c == '\n')
        .map_or(src.len(), |n| at + n)
}

fn block_comment_end(src: &[char], at: usize) -> usize {
    let (mut i, mut depth) = (at, 0usize);
    while i < src.len() {
        match (src[i], src.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    src.len()
}

fn string_end(src: &[char], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < src.len() {
        match src[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    src.len()
}

/// `r"…"`, `r#"…"#`: `hashes` is where the hashes (or the quote) begin. A raw identifier (`r#type`) is code.
fn raw_string_end(src: &[char], at: usize, hashes: usize) -> usize {
    let count = src[hashes..].iter().take_while(|&&c| c == '#').count();
    if src.get(hashes + count) != Some(&'"') {
        return at;
    }
    let mut i = hashes + count + 1;
    while i < src.len() {
        if src[i] == '"' && src[i + 1..].iter().take(count).filter(|&&c| c == '#').count() == count {
            return i + 1 + count;
        }
        i += 1;
    }
    src.len()
}

/// `'x'` and `'\n'` are literals; `'a` without a closing quote is a lifetime, which is code.
fn char_end(src: &[char], quote: usize) -> usize {
    match (src.get(quote + 1), src.get(quote + 2)) {
        (Some('\\'), Some(_)) => {
            let from = quote + 3;
            src[from.min(src.len())..]
                .iter()
                .position(|&c| c == '\'')
                .map_or(src.len(), |n| from + n + 1)
        }
        (Some(_), Some('\'')) => quote + 3,
        _ => quote,
    }
}

/// Blanked source with every item marked `#[cfg(test)]` or `#[cfg(all(test, …))]` blanked as well.
pub fn without_tests(blanked: &str) -> String {
    let mut out = blanked.to_owned();
    for mark in ["#[cfg(test)]", "#[cfg(all(test"] {
        let mut from = 0;
        while let Some(found) = out[from..].find(mark) {
            let start = from + found;
            let end = item_end(&out, start + mark.len());
            let gap: String = out[start..end]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' })
                .collect();
            out.replace_range(start..end, &gap);
            from = start + gap.len();
        }
    }
    if out.contains("#![cfg(test)]") {
        String::new()
    } else {
        out
    }
}

/// The end of the item after `from`: its `;` or the brace that closes its body, whichever comes first.
fn item_end(text: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (i, c) in text[from..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return from + i + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return from + i + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether `c` can be part of an identifier.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `line` holds `needle` as a whole word: not as a part of a longer identifier.
pub fn has_word(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + needle.len()..].chars().next();
        let joins =
            |edge: Option<char>, own: Option<char>| edge.is_some_and(is_word) && own.is_some_and(is_word);
        !joins(before, needle.chars().next()) && !joins(after, needle.chars().next_back())
    })
}

/// A function with a body, as found in blanked source.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// Line of the `fn` keyword, from 1.
    pub line: usize,
    /// Lines from the `fn` keyword to the closing brace, both included.
    pub lines: usize,
}

/// Every function with a body in `blanked`, nested ones too.
pub fn functions(blanked: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in blanked.match_indices("fn ") {
        if blanked[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let name: String = blanked[at + 3..].chars().take_while(|&c| is_word(c)).collect();
        let end = item_end(blanked, at);
        if name.is_empty() || !blanked[..end].ends_with('}') {
            continue;
        }
        let line = 1 + blanked[..at].matches('\n').count();
        let lines = 1 + blanked[at..end].matches('\n').count();
        found.push(Function { name, line, lines });
    }
    found
}

#[test]
fn blanking_keeps_code_lines_and_lifetimes() {
    let source = concat!(
        "let a = \"unsafe \\\" {\"; // unsafe\n",
        "let b: &'a str = r#\"unsafe \" x\"#; /* /* unsafe */ \n */ f('{', '\\'', b'}', br\"}\");",
    );
    let blanked = blank(source);
    assert!(!blanked.contains("unsafe"), "{blanked}");
    assert!(blanked.contains("&'a str"), "{blanked}");
    assert!(!blanked.contains(['{', '}', '"']), "{blanked}");
    assert_eq!(blanked.matches('\n').count(), source.matches('\n').count());
    assert_eq!(blank("fn r#type() {}"), "fn r#type() {}");
}

#[test]
fn words_are_whole_words() {
    assert!(has_word("x = unsafe { y }", "unsafe"));
    assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
    assert!(has_word("let t = std::time::Instant::now();", "Instant::now"));
    assert!(!has_word("MyInstant::nowish()", "Instant::now"));
}

#[test]
fn test_items_are_cut_and_the_rest_is_kept() {
    let cut = without_tests(
        "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { {} }\n}\n#[cfg(test)] mod t;\nfn c() {}\n",
    );
    assert!(cut.contains("fn a") && cut.contains("fn c"), "{cut}");
    assert!(!cut.contains("fn b") && !cut.contains("mod t"), "{cut}");
    assert_eq!(cut.matches('\n').count(), 7);
}

#[test]
fn function_lengths_are_counted_to_the_closing_brace() {
    let found = functions("trait T { fn a(&self); }\nfn b() {\n  if x { y }\n}\n");
    assert_eq!(
        found,
        [Function {
            name: "b".into(),
            line: 2,
            lines: 3
        }]
    );
}
