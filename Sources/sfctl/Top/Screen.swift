import Dispatch
import Glibc

/// The whole terminal, given back as it was when this is closed or a signal ends sfctl.
final class Screen {
  private let saved: termios
  private var signals: [any DispatchSourceSignal] = []

  static var isTerminal: Bool { isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 }

  init() throws(Failure) {
    var settings = termios()
    guard tcgetattr(STDIN_FILENO, &settings) == 0 else {
      throw Failure("cannot use this terminal: \(String(cString: strerror(errno))). Try --once.")
    }
    let saved = settings
    self.saved = saved
    // Keys come one by one and are not shown; control-C stays a signal.
    settings.c_lflag &= ~tcflag_t(ICANON | ECHO)
    tcsetattr(STDIN_FILENO, TCSANOW, &settings)
    for number in [SIGINT, SIGTERM, SIGHUP] {
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        Self.restore(saved)
        exit(number == SIGINT ? 0 : 128 + number)
      }
      source.resume()
      signals.append(source)
    }
    // The other screen, without a cursor.
    _ = Standard.write("\u{1B}[?1049h\u{1B}[?25l", to: STDOUT_FILENO)
  }

  func close() {
    for source in signals { source.cancel() }
    Self.restore(saved)
  }

  private static func restore(_ settings: termios) {
    var settings = settings
    _ = Standard.write("\u{1B}[?25h\u{1B}[?1049l", to: STDOUT_FILENO)
    tcsetattr(STDIN_FILENO, TCSANOW, &settings)
  }

  /// As many lines and columns as the terminal has now. A heading stands out, unless NO_COLOR is set.
  func draw(_ lines: [String]) {
    var size = winsize()
    let isKnown = ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_row > 0 && size.ws_col > 0
    let (rows, columns) = isKnown ? (Int(size.ws_row), Int(size.ws_col)) : (24, 80)
    let isPlain = getenv("NO_COLOR").map { $0.pointee != 0 } ?? false
    var shown = lines
    if shown.count > rows { shown = shown.prefix(rows - 1) + ["… \(shown.count - rows + 1) more lines"] }
    let text = shown.enumerated().map { index, line in
      let cut = String(line.prefix(columns))
      let isHeading = index == 0 || (index > 0 && shown[index - 1].isEmpty)
      return (isHeading && !isPlain ? "\u{1B}[1m\(cut)\u{1B}[0m" : cut) + "\u{1B}[K"
    }
    _ = Standard.write("\u{1B}[H" + text.joined(separator: "\r\n") + "\u{1B}[J", to: STDOUT_FILENO)
  }

  /// Waits so long. True: q was pressed, or nobody is at the keyboard any more.
  func waitsForKey(seconds: Double) async throws -> Bool {
    let end = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < end {
      var input = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
      if poll(&input, 1, 0) > 0 {
        var key: UInt8 = 0
        let count = read(STDIN_FILENO, &key, 1)
        if count == 0 || key == UInt8(ascii: "q") || key == UInt8(ascii: "Q") { return true }
        if count < 0, errno != EINTR, errno != EAGAIN { return true }
      }
      try await Task.sleep(for: .milliseconds(50))
    }
    return false
  }
}
