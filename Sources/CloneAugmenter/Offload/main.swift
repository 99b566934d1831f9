// sf-offload: runs a program, and each call of one of its functions in a clone of the virtual machine.
import Augmenter
import CTrace
import Glibc

func report(_ shared: ct_shared, status: Int32) -> OffloadReport {
  var report = OffloadReport(programStatus: status, watched: true)
  let c = shared.counters
  report.counts = [
    c.calls, c.offloaded, c.ran_at_home, c.conflicts, c.bytes_out, c.bytes_home, c.forward_us, c.run_us,
    c.merge_us,
    c.dropped, c.came_home_early, c.pages_home, c.collect_us, c.receive_us, c.apply_us, c.takeovers,
    c.kept_calls,
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
    let decider = Decider(options)
    if decider.letsRunUnwatched(), let status = runUnwatched(options.program) {
      decider.save()
      write(OffloadReport(programStatus: status, watched: false), options)
      return status
    }
    let supervisor = try Supervisor(options, decider)
    let status = try supervisor.run()
    let shared = supervisor.shared.pointee
    if shared.found == 0, status != 127, status != 126 {
      say(
        "\(options.program[0]) ran here: it has no function \(options.block), and its libraries have none. See nm -D."
      )
    }
    write(report(shared, status: status), options)
    return status
  } catch {
    say("cannot run \(options.program[0]): \(error).")
    return 1
  }
}

/// The program by itself: how it ended. Nil: it can not be run in this way, or at all.
func runUnwatched(_ program: [String]) -> Int32? {
  var arguments: [UnsafeMutablePointer<CChar>?] = program.map { strdup($0) } + [nil]
  defer { arguments.forEach { free($0) } }
  let pid = ct_spawn(&arguments)
  guard pid > 0 else { return nil }
  Supervisor.leaveSignalsToProgram()
  var event = ct_event()
  return ct_wait(pid, 0, &event) == 1 ? event.value : 1
}

func write(_ report: OffloadReport, _ options: Options) {
  if let mark = options.reportMark { writeAll(2, Array((mark + report.json).utf8)) }
  guard let path = options.report else { return }
  let fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
  guard fd >= 0, writeAll(fd, Array(report.json.utf8)) else {
    return say("cannot write \(path): \(SystemError("open")). Name a file in a directory that is there.")
  }
}

exit(run())
