import Foundation
import Testing

@Suite struct ReportTests {
  @Test func `the page has the timeline, a curve and a map for each host, and nothing from elsewhere`()
    async throws
  {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell("\"$SFCTL\" report t1 --html -")
      #expect(outcome.status == 0 && outcome.error == "")
      let page = outcome.output
      #expect(page.hasPrefix("<!DOCTYPE html>") && page.hasSuffix("</html>\n"))
      #expect(page.components(separatedBy: "<svg").count - 1 == 5)
      #expect(page.contains("<title>freeze: 8.0 ms, from 10 µs</title>") && page.contains(">dev.1</text>"))
      #expect(page.contains("<h3>h&lt;1&gt;</h3>") && !page.contains("h<1>"))
      #expect(page.contains("1 pushed") && page.contains("1 missing") && page.contains("2 origin"))
      #expect(!page.contains("src=") && !page.contains("href=") && !page.contains("url("))
    }
  }

  @Test func `a file is written whole or not at all`() async throws {
    try await FakeDaemon.serving { sfctl in
      let file = sfctl.directory + "/page.html"
      #expect(try await sfctl.shell("\"$SFCTL\" report t1 --html \(file)").status == 0)
      #expect(try String(contentsOfFile: file, encoding: .utf8).hasSuffix("</html>\n"))
      let outcome = try await sfctl.shell("\"$SFCTL\" report t1 --html \(sfctl.directory)/none/page.html")
      #expect(outcome.status == 1)
      #expect(outcome.error.contains("No such file or directory"))
    }
  }

  @Test func `of a fork whose memory is forgotten the timeline is left, and why`() async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell("\"$SFCTL\" report joined --html -")
      #expect(outcome.status == 0)
      #expect(outcome.error.contains("only the timeline"))
      #expect(outcome.output.components(separatedBy: "<svg").count - 1 == 1)
      #expect(outcome.output.contains("is gone"))
    }
  }
}
