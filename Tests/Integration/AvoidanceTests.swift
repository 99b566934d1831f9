import Foundation
import Support
import Testing

/// Whatever a fork leaves out, because nobody could miss it, nobody misses: every page that a guest may observe is right.
/// guest/sf-churn.c walks at random against a model of what memory must hold. A failure shows the walk's seed;
/// `SNOWFORK_TEST_SEED` gives one more walk.
@Suite("Random walks through memory", .serialized, .ownHost)
struct AvoidanceTests {
  private let host: TestHost

  init() throws { host = try #require(TestHost.here) }

  private static let seeds: [UInt64] =
    [1, 2, 3, 4]
    + (ProcessInfo.processInfo.environment["SNOWFORK_TEST_SEED"].flatMap(UInt64.init).map { [$0] } ?? [])
  private static let generations = 3

  @Test(
    "200 forks at random moments, with those on a disk: every page is as the model says", arguments: seeds)
  func walk(seed: UInt64) throws {
    try host.device()
    try expectRight("dev", seed: seed, forks: 40, directory: "/tmp")
  }

  @Test(
    "The same with files on a disk, which reads into memory itself, and two processors",
    arguments: [5, 6] as [UInt64])
  func onDisk(seed: UInt64) throws {
    let path = host.directory + "/scratch/ext4.raw"
    defer { unlink(path) }
    try #require(
      FileManager.default.createFile(atPath: path, contents: nil) && truncate(path, 192 << 20) == 0)
    let options = ["-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", path]
    let made = try Command("/usr/sbin/mke2fs", options, scratch: host.directory + "/scratch").wait()
    try #require(made.status == 0, "\(made.error)")
    try host.device("files", vcpus: 2, disk: path)
    defer { _ = try? host.sfctl("vm", "destroy", "files") }
    try host.inside("files", "mount", "-t", "ext4", "/dev/vda", "/mnt")
    try expectRight("files", seed: seed, forks: 20, directory: "/mnt")
  }

  @Test("The walk does find what is wrong: one page, damaged for a while in every clone")
  func damaged() throws {
    try host.device()
    let outcome = try churn("dev", seed: 7, forks: 8, directory: "/tmp", "break")
    let found = Self.numbers(outcome)
    #expect(outcome.status == 1, "\(outcome.text)\(outcome.error)")
    #expect(found["clones"] ?? 0 >= 8 && found["wrong"] == found["clones"], "\(outcome.text)")
  }

  private func churn(_ vm: String, seed: UInt64, forks: Int, directory: String, _ more: String...) throws
    -> Command.Outcome
  {
    let arguments = ["\(seed)", "\(forks)", "\(Self.generations)", "16", directory] + more
    return try host.start(["exec", vm, "--", "sf-churn"] + arguments).wait(seconds: 900)
  }

  private func expectRight(_ vm: String, seed: UInt64, forks: Int, directory: String) throws {
    let outcome = try churn(vm, seed: seed, forks: forks, directory: directory)
    let found = Self.numbers(outcome)
    let told = "\(outcome.text)\(outcome.error)\n\(host.daemonLog.suffix(3000))"
    #expect(
      outcome.status == 0 && outcome.lines.first == "seed \(seed)" && outcome.lines.count == 2, "\(told)")
    #expect(
      found["wrong"] == 0 && found["forks"] ?? 0 >= forks && found["generations"] == Self.generations,
      "\(told)")
  }

  /// Of the last line, "forks F clones C generations G checks C wrong W".
  private static func numbers(_ outcome: Command.Outcome) -> [String: Int] {
    let words = (outcome.lines.last ?? "").split(separator: " ").map(String.init)
    let pairs = stride(from: 0, to: words.count - 1, by: 2).compactMap { place in
      Int(words[place + 1]).map { (words[place], $0) }
    }
    return Dictionary(pairs, uniquingKeysWith: { $1 })
  }
}
