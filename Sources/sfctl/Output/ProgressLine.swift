import Wire

/// What a command waits for, on one line of the terminal that is rewritten and in the end removed.
///
/// Shown on stderr only where that is a terminal, and only for what takes over a second.
actor ProgressLine {
  private var text: String
  private var isShown = false
  private let began = ContinuousClock.now
  private var frame = 0

  private init(_ text: String) { self.text = text }

  /// Runs `body` under a line that first says `text`.
  static func during<R: Sendable>(
    _ text: String, _ body: @Sendable (ProgressLine) async throws -> R
  ) async throws -> R {
    let line = ProgressLine(text)
    let ticker = Task {
      guard Standard.errorIsTerminal else { return }
      try await Task.sleep(for: .seconds(1))
      while true {
        await line.draw()
        try await Task.sleep(for: .milliseconds(100))
      }
    }
    do {
      let result = try await body(line)
      ticker.cancel()
      await line.remove()
      return result
    } catch {
      ticker.cancel()
      await line.remove()
      throw error
    }
  }

  func update(_ progress: Snowfork_V1_Progress) {
    var parts = [progress.text.isEmpty ? progress.phase : progress.text]
    if progress.total > 0 { parts.append("\(progress.done) of \(progress.total)") }
    text = parts.joined(separator: ": ")
  }

  private func draw() {
    let spinner = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"]
    let seconds = (ContinuousClock.now - began).components.seconds
    _ = Standard.write(
      "\r\u{1B}[K\(spinner[frame % spinner.count]) \(text) (\(seconds) s)", to: 2)
    frame += 1
    isShown = true
  }

  private func remove() {
    if isShown { _ = Standard.write("\r\u{1B}[K", to: 2) }
    isShown = false
  }
}
