import Glibc
import LinuxSystem
import Memtap

// sf-memtap: the pager of a host. No arguments; SNOWFORK_RUN names the run-time directory.
// It ends on a signal, at any moment: its successor goes on from its files. See docs/paging.md.

func fail(_ sentence: String) -> Never {
  let line = "sf-memtap: \(sentence)\n"
  _ = line.utf8.withContiguousStorageIfAvailable { write(STDERR_FILENO, $0.baseAddress, $0.count) }
  exit(1)
}

ignoreBrokenPipes()
let paths = MemtapPaths(run: getenv("SNOWFORK_RUN").map { String(cString: $0) } ?? "/run/snowfork")

// A VM in a fault waits for us: before everybody else. Without the right to ask for it, slower.
setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, -10)
// Nor may memory trouble elsewhere end us. Fails without the right to it.
if let score = try? OwnedDescriptor.open("/proc/self/oom_score_adj", O_WRONLY) { write(score.raw, "-900", 4) }

if let missing = KernelFeature.probe().first(where: { !$0.isPresent && $0.name != "PAGEMAP_SCAN" }) {
  fail(missing.sentence)
}
// Some five descriptors a VM.
var descriptors = rlimit()
getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &descriptors)
descriptors.rlim_cur = descriptors.rlim_max
setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &descriptors)

do {
  mkdir(paths.run, 0o711)
  let lock = try OwnedDescriptor.open(paths.lock, O_RDWR | O_CREAT, mode: 0o600)
  guard flock(lock.raw, LOCK_EX | LOCK_NB) == 0 else { fail("another one runs on \(paths.run).") }
  var tuning = PagerTuning()
  tuning.override(from: getenv("SNOWFORK_PAGER_TUNING").map { String(cString: $0) })
  let server = try ControlServer(pager: try Pager(paths: paths, tuning: tuning))
  withExtendedLifetime(lock) { server.run() }
} catch {
  fail("\(error).")
}
