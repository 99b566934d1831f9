import Foundation

/// Where the built programs and the guest images are.
public enum ProjectFiles {
  /// `SNOWFORK_BIN`, or `bin` of the tree that this file is in.
  public static let programs =
    ProcessInfo.processInfo.environment["SNOWFORK_BIN"] ?? root + "/bin"

  public static let root: String = {
    var directory = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
    while directory.path != "/", !FileManager.default.fileExists(atPath: directory.path + "/images/build") {
      directory.deleteLastPathComponent()
    }
    return directory.path
  }()

  /// The images of tests, by name: `mini`, `debian` and `debian-disk` as `make images` left them; `mini-tests`, `mini-liar` and
  /// `mpi-tests`, with the programs of Tests/Integration/guest, are made here when they are first asked for.
  public static func image(_ name: String) throws -> String {
    if ["mini", "debian", "debian-disk"].contains(name) { return builtImages + "/" + name }
    try (name == "mpi-tests" ? mpiImage : testImages).get()
    return testImageDirectory + "/" + name
  }

  /// `SNOWFORK_IMAGES`, or where `make images` puts them.
  private static let builtImages: String = {
    let environment = ProcessInfo.processInfo.environment
    let state = environment["SNOWFORK_STATE"] ?? "/var/lib/snowfork"
    return environment["SNOWFORK_IMAGES"] ?? state + "/images"
  }()

  private static let testImageDirectory = root + "/build/tests/images"

  private static let testImages = Result { try make("build") }
  private static let mpiImage = Result { try make("build-mpi") }

  private static func make(_ script: String) throws {
    let path = "Tests/Integration/guest/" + script
    let outcome = try Command(
      root + "/" + path, [testImageDirectory], scratch: NSTemporaryDirectory()
    ).wait(seconds: 300)
    guard outcome.status == 0 else { throw Command.Failed(description: "\(path): \(outcome.error)") }
  }
}
