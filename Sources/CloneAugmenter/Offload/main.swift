// sf-offload: runs a program, and each call of one of its functions in a clone of the virtual machine.
import Augmenter
import CTrace
import Glibc

func report(_ shared: ct_shared, status: Int32) -> OffloadReport {
  var report = OffloadReport()
  report.programStatus = status
  let c = shared.counters
  report.fields = [
    ("calls", c.calls), ("offloaded", c.offloaded), ("ran_at_home", c.ran_at_home),
    ("conflicts", c.conflicts),
    ("bytes_out", c.bytes_out), ("bytes_home", c.bytes_home), ("forward_us", c.forward_us),
    ("run_us", c.run_us), ("merge_us", c.merge_us), ("dropped", c.dropped),
    ("came_home_early", c.came_home_early), ("pages_home", c.pages_home), ("collect_us", c.collect_us),
    ("receive_us", c.receive_us), ("apply_us", c.apply_us), ("takeovers", c.takeovers),
    ("kept_calls", c.kept_calls),
  ]
  return report
}

func run() -> Int32 {
  let options: Options
  if CommandLine.arguments.dropFirst().first == "--help" {
    writeAll(1, Array(Options.help.utf8))
    return 0
  }
  do throws(Options.Wrong) {
    options = try Options(Array(CommandLine.arguments.dropFirst()))
  } catch {
    say("the command line is wrong: \(error.reason). See sf-offload --help.")
    return 2
  }
  do throws(SystemError) {
    let supervisor = try Supervisor(options)
    let status = try supervisor.run()
    let shared = supervisor.shared.pointee
    if shared.found == 0, status != 127, status != 126 {
      say(
        "\(options.program[0]) ran here: it has no function \(options.block), and its libraries have none. See nm -D."
      )
    }
    if let path = options.report {
      let fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
      guard fd >= 0, writeAll(fd, Array(report(shared, status: status).json.utf8)) else {
        say("cannot write \(path): \(SystemError("open")). Name a file in a directory that is there.")
        return status
      }
    }
    return status
  } catch {
    say("cannot run \(options.program[0]): \(error).")
    return 1
  }
}

exit(run())
