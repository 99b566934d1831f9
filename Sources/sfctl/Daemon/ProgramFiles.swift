import Foundation

/// What belongs to this installation, found from where this program lies: a build tree or a prefix.
enum ProgramFiles {
  /// The directory of this program, links followed.
  static let directory: String =
    ((try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "/usr/bin/sfctl")
    .parentDirectory

  /// sfd beside this program, else in PATH.
  static func daemon() throws -> String {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
    for candidate in [directory] + path.split(separator: ":").map(String.init) {
      let program = candidate + "/sfd"
      if FileManager.default.isExecutableFile(atPath: program) { return program }
    }
    throw Failure("cannot start the daemon: sfd is neither in \(directory) nor in PATH. Run “make build”.")
  }

  /// `images/build`: in a directory above this program (a build tree), or under its prefix's share.
  static func imageBuilder() throws -> String {
    var above = directory
    var candidates: [String] = []
    while above != "/" && !above.isEmpty {
      above = above.parentDirectory
      candidates += [above + "/images/build", above + "/share/snowfork/images/build"]
    }
    for candidate in candidates where FileManager.default.isExecutableFile(atPath: candidate) {
      return candidate
    }
    throw Failure("cannot build images: images/build is not above \(directory). Install snowfork whole.")
  }
}

extension String {
  fileprivate var parentDirectory: String {
    let parent = (self as NSString).deletingLastPathComponent
    return parent.isEmpty ? "/" : parent
  }
}
