import Hypervisor
import Testing

@Suite struct XMLElementTests {
  @Test func textAndAttributesAreEscaped() {
    let element = XMLElement("a", [("b", "'\"<&>\n")], text: "x < y && z")
    #expect(element.serialized() == "<a b='&apos;&quot;&lt;&amp;&gt;&#10;'>x &lt; y &amp;&amp; z</a>\n")
  }

  @Test func controlCharactersCannotBreakTheDocument() {
    #expect(XMLElement.escape("a\u{0}b\u{1B}") == "a\u{FFFD}b\u{FFFD}")
  }

  @Test func childrenAreIndented() {
    let element = XMLElement("a", children: [XMLElement("b", children: [XMLElement("c")])])
    #expect(element.serialized() == "<a>\n  <b>\n    <c/>\n  </b>\n</a>\n")
  }
}
