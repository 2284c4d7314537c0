//! Two kinds of plots as inline SVG: bars in groups, and lines. No script, no font, no file beside the page.

use std::fmt::Write;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 44.0;
/// Classes `s0` … of the page's style; more series begin again.
const COLOURS: usize = 6;

/// Bars side by side: one group for each label, one bar in it for each series.
pub(crate) struct Bars<'a> {
    pub(crate) unit: &'a str,
    pub(crate) labels: Vec<String>,
    /// Name, and one value for each label.
    pub(crate) series: Vec<(String, Vec<Option<f64>>)>,
}

/// Points joined by lines, over a common axis from 0.
pub(crate) struct Lines<'a> {
    pub(crate) across: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) series: Vec<(String, Vec<(f64, f64)>)>,
    /// Where the common axis is marked, and with what; round numbers where this is empty.
    pub(crate) ticks: Vec<(f64, &'a str)>,
}

/// Text that may stand in HTML and in its attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Three digits that matter.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The same without zeros at the end: a tick of an axis.
fn tick_text(value: f64) -> String {
    let text = short(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A round number at or above `value`, and a step that divides it.
fn scale(value: f64) -> (f64, f64) {
    if value.is_nan() || value <= 0.0 {
        return (1.0, 0.25);
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power / 5.0);
    let step = steps
        .into_iter()
        .find(|step| step * 5.0 >= value)
        .unwrap_or(2.0 * power);
    ((value / step).ceil() * step, step)
}

/// The end of an axis, and round numbers along it.
fn round_marks(most: f64) -> (f64, Vec<(f64, String)>) {
    let (far, step) = scale(most);
    let count = (far / step).round() as u32;
    let mark = |n| (step * f64::from(n), tick_text(step * f64::from(n)));
    (far, (0..=count).map(mark).collect())
}

struct Sheet {
    out: String,
    top: f64,
}

impl Sheet {
    fn new(most: f64, unit: &str, names: &[&str]) -> Sheet {
        let (top, step) = scale(most);
        let mut sheet = Sheet {
            out: format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">"),
            top,
        };
        let mut tick = 0.0;
        while tick <= top * 1.001 {
            let y = sheet.y(tick);
            let end = WIDTH - RIGHT;
            sheet.put(&format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            ));
            sheet.text(LEFT - 8.0, y + 4.0, "end", &tick_text(tick));
            tick += step;
        }
        sheet.text(LEFT - 8.0, TOP - 14.0, "end", unit);
        sheet.legend(names);
        sheet
    }

    fn put(&mut self, what: &str) {
        self.out.push_str(what);
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape(text);
        let _ = write!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)
    }

    fn legend(&mut self, names: &[&str]) {
        let mut x = LEFT + 8.0;
        for (n, name) in names.iter().enumerate() {
            let class = n % COLOURS;
            self.put(&format!(
                "<rect class=\"s{class}\" x=\"{x:.1}\" y=\"10\" width=\"12\" height=\"12\" rx=\"2\"/>"
            ));
            self.text(x + 17.0, 20.5, "start", name);
            x += 32.0 + 6.6 * name.chars().count() as f64;
        }
    }

    fn close(mut self) -> String {
        self.out.push_str("</svg>");
        self.out
    }
}

impl Bars<'_> {
    pub(crate) fn draw(&self) -> String {
        let values = self.series.iter().flat_map(|(_, values)| values.iter().flatten());
        let most = values.copied().fold(0.0, f64::max);
        let names: Vec<&str> = self.series.iter().map(|(name, _)| name.as_str()).collect();
        let mut sheet = Sheet::new(most, self.unit, &names);
        let group = (WIDTH - LEFT - RIGHT) / self.labels.len().max(1) as f64;
        let bar = (group * 0.76 / self.series.len().max(1) as f64).min(64.0);
        for (g, label) in self.labels.iter().enumerate() {
            let middle = LEFT + group * (g as f64 + 0.5);
            sheet.text(middle, HEIGHT - BOTTOM + 20.0, "middle", label);
            let start = middle - bar * self.series.len() as f64 / 2.0;
            for (s, (name, values)) in self.series.iter().enumerate() {
                let Some(value) = values.get(g).copied().flatten() else {
                    continue;
                };
                let (x, y) = (start + bar * s as f64, sheet.y(value));
                let (tall, wide, class) = (HEIGHT - BOTTOM - y, bar - 3.0, s % COLOURS);
                let tip = escape(&format!("{name}, {label}: {} {}", short(value), self.unit));
                sheet.put(&format!(
                    "<rect class=\"s{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" \
                     height=\"{tall:.1}\" rx=\"2\">\
                     <title>{tip}</title></rect>"
                ));
                if bar > 24.0 {
                    sheet.text(x + wide / 2.0, y - 4.0, "middle", &short(value));
                }
            }
        }
        sheet.close()
    }
}

impl Lines<'_> {
    pub(crate) fn draw(&self) -> String {
        let points = || self.series.iter().flat_map(|(_, points)| points);
        let most = points().map(|point| point.1).fold(0.0, f64::max);
        let marks = self.ticks.iter().map(|(at, text)| (*at, (*text).to_owned()));
        let (far, marks) = match self.ticks.last() {
            Some((far, _)) => (*far, marks.collect()),
            None => round_marks(points().map(|point| point.0).fold(0.0, f64::max)),
        };
        let names: Vec<&str> = self.series.iter().map(|(name, _)| name.as_str()).collect();
        let mut sheet = Sheet::new(most, self.unit, &names);
        let x = |value: f64| LEFT + value / far * (WIDTH - LEFT - RIGHT - 12.0);
        for (at, text) in marks {
            sheet.text(x(at), HEIGHT - BOTTOM + 18.0, "middle", &text);
        }
        sheet.text(WIDTH - RIGHT, HEIGHT - 8.0, "end", self.across);
        for (s, (_, points)) in self.series.iter().enumerate() {
            let class = s % COLOURS;
            let places: Vec<(f64, f64)> = points
                .iter()
                .map(|point| (x(point.0), sheet.y(point.1)))
                .collect();
            let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            sheet.put(&format!(
                "<polyline class=\"l{class}\" points=\"{}\"/>",
                path.join(" ")
            ));
            if places.len() <= 40 {
                for (x, y) in places {
                    sheet.put(&format!(
                        "<circle class=\"s{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"
                    ));
                }
            }
        }
        sheet.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_reach() {
        for value in [0.003, 0.9, 1.0, 1.87, 7.0, 99.0, 350.0, 19_500.0] {
            let (top, step) = scale(value);
            assert!(top >= value && top <= value * 2.0, "{value} {top}");
            assert!(
                (top / step).fract().abs() < 1e-6 && top / step <= 6.0,
                "{value} {top} {step}"
            );
        }
        assert_eq!(scale(0.0), (1.0, 0.25));
    }

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let bars = Bars {
            unit: "<b>",
            labels: vec!["\"><script>".into()],
            series: vec![("a&b".into(), vec![Some(1.0)])],
        };
        let svg = bars.draw();
        assert!(
            !svg.contains("<script") && !svg.contains("<b>") && svg.contains("a&amp;b"),
            "{svg}"
        );
    }

    #[test]
    fn missing_values_leave_a_hole() {
        let bars = Bars {
            unit: "s",
            labels: vec!["x".into(), "y".into()],
            series: vec![("a".into(), vec![None, Some(2.0)])],
        };
        assert_eq!(bars.draw().matches("<title>").count(), 1);
    }
}
