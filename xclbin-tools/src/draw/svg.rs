//! SVG as text: elements, numbers, and names that cannot break it.

/// What has been drawn so far.
#[derive(Default)]
pub(super) struct Svg {
    text: String,
}

/// A point, from the left and from the top.
pub(super) type Point = (f64, f64);

/// A rectangle.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Rect {
    pub(super) fn right(self) -> f64 {
        self.x + self.width
    }

    pub(super) fn bottom(self) -> f64 {
        self.y + self.height
    }
}

impl Svg {
    /// Begins a group of a class, with a tooltip.
    pub(super) fn open(&mut self, class: &str, tooltip: &str) {
        self.text.push_str(&format!("<g class=\"{}\">", escape(class)));
        if !tooltip.is_empty() {
            self.text.push_str(&format!("<title>{}</title>", escape(tooltip)));
        }
        self.text.push('\n');
    }

    /// Ends a group.
    pub(super) fn close(&mut self) {
        self.text.push_str("</g>\n");
    }

    /// A rectangle of a class, filled with a colour if there is one.
    pub(super) fn rect(&mut self, rect: Rect, class: &str, fill: Option<&str>) {
        let Rect { x, y, width, height } = rect;
        let [x, y, width, height] = [x, y, width, height].map(number);
        let fill = fill.map_or(String::new(), |fill| format!(" fill=\"{}\"", escape(fill)));
        let class = escape(class);
        self.text.push_str(&format!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"{fill}/>\n"
        ));
    }

    /// A path of a class.
    pub(super) fn path(&mut self, commands: &str, class: &str, colour: &str) {
        let [commands, class, colour] = [commands, class, colour].map(escape);
        self.text.push_str(&format!("<path class=\"{class}\" d=\"{commands}\" stroke=\"{colour}\"/>\n"));
    }

    /// A filled shape.
    pub(super) fn shape(&mut self, commands: &str, colour: &str) {
        let [commands, colour] = [commands, colour].map(escape);
        self.text.push_str(&format!("<path d=\"{commands}\" fill=\"{colour}\"/>\n"));
    }

    /// A line of text, from its base line's start, middle or end, as the class says.
    pub(super) fn text(&mut self, (x, y): Point, class: &str, text: &str) {
        let [x, y] = [x, y].map(number);
        let [class, text] = [class, text].map(escape);
        self.text.push_str(&format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>\n"));
    }

    /// The whole document.
    pub(super) fn finish(self, title: &str, (width, height): Point) -> String {
        let [width, height] = [width.ceil(), height.ceil()].map(number);
        let title = escape(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" xml:space=\"preserve\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.text
        )
    }
}

/// A point as a path names it.
pub(super) fn at((x, y): Point) -> String {
    format!("{} {}", number(x), number(y))
}

/// With one digit behind the point at most.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    let short = text.strip_suffix(".0").unwrap_or(&text);
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

/// Text that is itself in XML; what XML cannot hold is a replacement character.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            _ => escaped.push(char),
        }
    }
    escaped
}

/// The width of a text of a size, a little more than it takes in the usual fonts.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.62
}

const STYLE: &str = "
text { font-family: 'DejaVu Sans', Verdana, Arial, sans-serif; font-size: 9px; fill: #1e293b; }
.title { font-size: 15px; font-weight: bold; }
.name { font-size: 11px; font-weight: bold; }
.small { font-size: 9.5px; fill: #64748b; }
.right { font-size: 9px; fill: #64748b; text-anchor: end; }
.label { font-size: 7.5px; text-anchor: middle; }
.on { fill: #ffffff; font-weight: bold; }
.group { font-size: 7px; fill: #64748b; }
.mono { font-family: 'DejaVu Sans Mono', Menlo, Consolas, monospace; font-size: 9.5px; }
.unused { fill: #94a3b8; }
.body { rx: 7px; stroke: #cbd5e1; }
.core .body { fill: #f4f7fd; }
.memory .body { fill: #fdf8ec; }
.shim .body { fill: #f0f7f1; }
.idle .body { fill: #fafafa; stroke: #e2e8f0; }
.switch { fill: #0f172a; fill-opacity: 0.045; }
.bank { fill: #ffffff; stroke: #e2e8f0; stroke-width: 0.6; }
.initial { fill: #cbd5e1; }
.program { fill: #a3b3cc; }
.stripe { fill-opacity: 0.5; }
.small-stripe { fill-opacity: 1; }
.frame { fill: none; stroke: #475569; stroke-width: 0.6; }
.port { stroke: #94a3b8; stroke-width: 0.6; rx: 2px; }
.wire { fill: none; stroke-width: 1.5; stroke-linecap: round; stroke-linejoin: round; }
.service .wire { stroke-width: 0.8; }
.shared .wire { stroke-width: 1.7; stroke-dasharray: 5 2; }
.flow:hover .wire, .shared:hover .wire { stroke-width: 3.5; }
";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_short() {
        let check = |value, expected| assert_eq!(number(value), expected);
        check(0.0, "0");
        check(-0.04, "0");
        check(12.34, "12.3");
        check(100.0, "100");
    }

    proptest! {
        #[test]
        fn any_text_is_itself(text: String) {
            let mut svg = Svg::default();
            svg.open(&text, &text);
            svg.text((1.0, 2.0), &text, &text);
            svg.close();
            let document = svg.finish(&text, (1.0, 1.0));
            let parsed = roxmltree::Document::parse(&document).unwrap();
            let found = parsed.descendants().find(|node| node.has_tag_name("text")).unwrap();
            let kept: String = text
                .chars()
                .map(|char| match char {
                    '\n' => '\n',
                    '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
                    _ => char,
                })
                .collect();
            prop_assert_eq!(found.text().unwrap_or(""), kept);
        }
    }
}
