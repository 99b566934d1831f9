import ArgumentParser

/// `--json`, the same for every command.
struct OutputOptions: ParsableArguments {
  @Flag(help: "Print one JSON document on stdout and nothing else there.")
  var json = false

  /// The document for a script, or the text for a person.
  func show(_ document: some Encodable, text: @autoclosure () -> String) throws {
    if json {
      try Standard.json(document)
    } else {
      Standard.output(text())
    }
  }
}
