import Glibc
import LinuxSystem

/// Decides between KVM and TCG. The device file alone proves nothing: it exists, and opens, on machines whose
/// KVM cannot run an ordinary guest.
///
/// KVM is taken where the processor says that it can virtualize *and* a guest has really run; else TCG. The
/// answer is worked out anew by each process.
public struct AcceleratorProbe {
  package var cpuinfo: () -> String
  /// Runs a guest of seven bytes under an accelerator. Nil: it ran to its end; else why not.
  package var runGuest: (_ accelerator: Accelerator) -> String?

  package init(
    cpuinfo: @escaping () -> String, runGuest: @escaping (_ accelerator: Accelerator) -> String?
  ) {
    self.cpuinfo = cpuinfo
    self.runGuest = runGuest
  }

  /// The probe of this machine.
  public init() {
    self.init(
      // The first processor's entry is all that is looked at.
      cpuinfo: { ProcessFiles.text("/proc/cpuinfo", maximumBytes: 8192) },
      runGuest: { ProbeGuest.run(under: $0) })
  }

  /// `/dev/kvm` is not touched unless the processor's flags promise something.
  public func choose() -> AcceleratorChoice {
    guard Self.virtualizationFlag(in: cpuinfo()) != nil else {
      return AcceleratorChoice(
        accelerator: .tcg, reason: "TCG: /proc/cpuinfo shows neither vmx nor svm")
    }
    if let failure = runGuest(.kvm) {
      return AcceleratorChoice(
        accelerator: .tcg,
        reason: "TCG: the processor could virtualize, but a probe guest under KVM failed: \(failure)")
    }
    return AcceleratorChoice(
      accelerator: .kvm, reason: "KVM: the processor virtualizes, and a probe guest has run")
  }

  /// Chooses, and where the choice is TCG hides an existing `/dev/kvm` from this process and its QEMUs: libvirt
  /// would ask QEMU anew about it at every start of a machine (10 to 64 s each). Call it in `main` before there
  /// is a second thread, which would go on seeing the device: with one it throws.
  public func chooseAndHideUnusableKVM() throws -> AcceleratorChoice {
    let choice = choose()
    guard choice.accelerator == .tcg, access(Self.device, F_OK) == 0 else { return choice }
    do {
      guard try ProcessSetup.threadCount() == 1 else {
        throw HypervisorError(
          .failed, operation: "hiding \(Self.device)", cause: "this process has several threads")
      }
      try ProcessSetup.hide(Self.device)
    } catch let error as SystemError {
      throw HypervisorError(.unavailable, operation: "hiding \(Self.device)", cause: error.description)
    }
    return choice
  }

  package static let device = "/dev/kvm"

  /// `vmx` or `svm`, whichever word is among the flags of the first processor.
  package static func virtualizationFlag(in cpuinfo: String) -> String? {
    let flags = cpuinfo.split(separator: "\n").first { $0.hasPrefix("flags") }
    let words = flags?.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == ":" }) ?? []
    return ["vmx", "svm"].first { words.contains(Substring($0)) }
  }
}
