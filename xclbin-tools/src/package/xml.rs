//! An XML text as a tree, and a tree as the text that `xclbinutil` writes.
//!
//! The layout of the text (two spaces a level, `/>` for what is empty, which characters are escaped) is that of
//! Boost.PropertyTree's `write_xml`, with which `xclbinutil` writes EMBEDDED_METADATA. Reading drops what that
//! library drops: white space around text, and where text stands among the elements beside it.

use crate::{
    error::{Error, Result},
    section::{embedded_metadata, json::Tree},
};

/// A document: one root element, comments around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Element(Element),
    Comment(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) attributes: Vec<(String, String)>,
    /// All text of the element, without that of the elements in it.
    pub(crate) text: String,
    pub(crate) nodes: Vec<Node>,
}

impl Document {
    /// Reads a text.
    ///
    /// # Errors
    /// As of [`embedded_metadata::document`], which bounds size and depth.
    pub(crate) fn parse(text: &str) -> Result<Document> {
        Ok(Document { nodes: content(embedded_metadata::document(text)?.root()).1 })
    }

    /// The text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
        for node in &self.nodes {
            write_node(&mut text, node, 0);
        }
        text
    }

    /// As JSON, which `xclbinutil` makes of it among all sections of a package.
    ///
    /// # Errors
    /// An element with text and with attributes or elements: JSON has no place for both.
    pub(crate) fn to_json(&self) -> Result<Tree> {
        Ok(Tree { text: String::new(), children: to_json(&self.nodes)? })
    }

    /// The element at a path of names, the first of each name; what is missing is made.
    pub(crate) fn element_mut(&mut self, path: &[&str]) -> Option<&mut Element> {
        let mut nodes = &mut self.nodes;
        let (last, before) = path.split_last()?;
        for name in before {
            nodes = &mut first_or_new(nodes, name)?.nodes;
        }
        first_or_new(nodes, last)
    }

    /// The element at a path of names, the first of each name.
    pub(crate) fn element(&self, path: &[&str]) -> Option<&Element> {
        let (first, rest) = path.split_first()?;
        let mut element = elements(&self.nodes).find(|element| element.name == *first)?;
        for name in rest {
            element = element.elements(name).next()?;
        }
        Some(element)
    }
}

impl Element {
    pub(crate) fn new(name: &str) -> Element {
        Element { name: name.to_owned(), ..Element::default() }
    }

    /// The same with one more attribute.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Element {
        self.attributes.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Replaces an attribute where it stands, or adds it at the end.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        match self.attributes.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.attributes.push((name.to_owned(), value)),
        }
    }

    /// The elements of a name directly inside.
    pub(crate) fn elements(&self, name: &str) -> impl Iterator<Item = &Element> {
        elements(&self.nodes).filter(move |element| element.name == name)
    }

    pub(crate) fn push(&mut self, element: Element) {
        self.nodes.push(Node::Element(element));
    }
}

fn elements(nodes: &[Node]) -> impl Iterator<Item = &Element> {
    nodes.iter().filter_map(|node| match node {
        Node::Element(element) => Some(element),
        Node::Comment(_) => None,
    })
}

fn first_or_new<'a>(nodes: &'a mut Vec<Node>, name: &str) -> Option<&'a mut Element> {
    let is_it = |node: &Node| matches!(node, Node::Element(element) if element.name == name);
    let index = nodes.iter().position(is_it).unwrap_or_else(|| {
        nodes.push(Node::Element(Element::new(name)));
        nodes.len().saturating_sub(1)
    });
    match nodes.get_mut(index) {
        Some(Node::Element(element)) => Some(element),
        _ => None,
    }
}

/// The text and the nodes inside a node. The recursion is as deep as the XML, which is bounded.
fn content(parent: roxmltree::Node<'_, '_>) -> (String, Vec<Node>) {
    let (mut text, mut nodes) = (String::new(), Vec::new());
    for node in parent.children() {
        if node.is_element() {
            let attributes = node.attributes().map(|at| (at.name().to_owned(), at.value().to_owned())).collect();
            let (text, inner) = content(node);
            nodes.push(Node::Element(Element {
                name: node.tag_name().name().to_owned(),
                attributes,
                text,
                nodes: inner,
            }));
        } else if node.is_text() {
            let words = node.text().unwrap_or_default().split([' ', '\t', '\r', '\n']);
            text.push_str(&words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "));
        } else if node.is_comment() {
            nodes.push(Node::Comment(node.text().unwrap_or_default().to_owned()));
        }
    }
    (text, nodes)
}

fn to_json(nodes: &[Node]) -> Result<Vec<(String, Tree)>> {
    let one = |node: &Node| match node {
        Node::Comment(comment) => Ok(("<xmlcomment>".to_owned(), Tree::from(comment.as_str()))),
        Node::Element(element) => {
            let mut json = Tree { text: element.text.clone(), children: Vec::new() };
            if !element.attributes.is_empty() {
                let pairs = element.attributes.iter().map(|(key, value)| (key.clone(), Tree::from(value.as_str())));
                json.push("<xmlattr>", Tree { text: String::new(), children: pairs.collect() });
            }
            json.children.extend(to_json(&element.nodes)?);
            if !json.text.is_empty() && !json.children.is_empty() {
                let bound = "JSON has no place for text beside attributes and elements";
                return Err(Error::refused("element", format!("<{}>", element.name), bound));
            }
            Ok((element.name.clone(), json))
        }
    };
    nodes.iter().map(one).collect()
}

fn write_node(text: &mut String, node: &Node, depth: usize) {
    match node {
        Node::Comment(comment) => {
            indent(text, depth);
            text.push_str(&format!("<!--{comment}-->\n"));
        }
        Node::Element(element) => write_element(text, element, depth),
    }
}

fn write_element(text: &mut String, element: &Element, depth: usize) {
    let name = &element.name;
    indent(text, depth);
    text.push_str(&format!("<{name}"));
    for (key, value) in &element.attributes {
        text.push_str(&format!(" {key}=\"{}\"", escaped(value)));
    }
    let has_nodes = !element.nodes.is_empty();
    if element.text.is_empty() && !has_nodes {
        text.push_str("/>\n");
        return;
    }
    text.push('>');
    let inside = depth.saturating_add(1);
    if has_nodes {
        text.push('\n');
        if !element.text.is_empty() {
            indent(text, inside);
            text.push_str(&format!("{}\n", escaped(&element.text)));
        }
        element.nodes.iter().for_each(|node| write_node(text, node, inside));
        indent(text, depth);
    } else {
        text.push_str(&escaped(&element.text));
    }
    text.push_str(&format!("</{name}>\n"));
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

/// Boost.PropertyTree's `encode_char_entities`: spaces alone would be lost, so the first becomes a reference.
fn escaped(text: &str) -> String {
    if let Some(rest) = text.strip_prefix(' ')
        && text.trim_matches(' ').is_empty()
    {
        return format!("&#32;{rest}");
    }
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `xclbinutil` 2.25 made of the same text.
    #[test]
    fn reads_and_writes_as_xclbinutil() {
        let text = concat!(
            "<?xml version='1.0'?>\n<!-- top -->\n<project name=\"v&quot;a'd&lt;d\" sp=\"  \">\n",
            "  <!-- in   side -->\n  <platform   vendor='e'>\n    <description/><e></e>",
            "<text>  some   text\n  more &amp; &lt;x&gt; \"q\" </text><mixed>abc<b/>def</mixed>",
            "<a1 k='v'>t</a1></platform>\n</project>\n<!-- tail -->\n",
        );
        let expected = concat!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<!-- top -->\n",
            "<project name=\"v&quot;a&apos;d&lt;d\" sp=\"&#32; \">\n  <!-- in   side -->\n",
            "  <platform vendor=\"e\">\n    <description/>\n    <e/>\n",
            "    <text>some text more &amp; &lt;x&gt; &quot;q&quot;</text>\n",
            "    <mixed>\n      abcdef\n      <b/>\n    </mixed>\n    <a1 k=\"v\">t</a1>\n",
            "  </platform>\n</project>\n<!-- tail -->\n",
        );
        let document = Document::parse(text).unwrap();
        assert_eq!(document.to_text(), expected);
        assert_eq!(Document::parse(expected).unwrap(), document);
    }

    #[test]
    fn makes_what_is_missing_on_a_path() {
        let mut document = Document::default();
        document.element_mut(&["a", "b"]).unwrap().push(Element::new("c").with("k", "1"));
        document.element_mut(&["a", "b"]).unwrap().push(Element::new("c").with("k", "2"));
        let texts: Vec<_> = document.element(&["a", "b"]).unwrap().elements("c").map(|c| c.attribute("k")).collect();
        assert_eq!(texts, [Some("1"), Some("2")]);
        assert_eq!(document.element(&["a", "x"]), None);
    }
}
