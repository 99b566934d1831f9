import Foundation
import Wire

/// A directory with an image: `image.json`, `vmlinuz`, `initrd`, and `disk.qcow2` if its root file system is on a disk.
struct ImageDirectory {
  var path: String

  /// A name is looked up among the built images; what has a slash is a directory of the user's.
  static func named(_ image: String) -> ImageDirectory {
    guard image.contains("/") else {
      return ImageDirectory(path: RuntimePaths.fromEnvironment().images + "/" + image)
    }
    return ImageDirectory(path: URL(fileURLWithPath: image).standardizedFileURL.path)
  }

  var isBuilt: Bool { FileManager.default.fileExists(atPath: path + "/image.json") }

  /// Its absolute path, or a failure that says how to build it.
  func requireBuilt() throws -> String {
    guard isBuilt else {
      let name = (path as NSString).lastPathComponent
      throw Failure(
        "cannot use image \(name): \(path)/image.json is not there. Run “sfctl image build \(name)”.")
    }
    return path
  }
}

/// An image in `image ls --json` and `image build --json`.
struct ImageDocument: Encodable {
  var name: String
  var directory: String
  var kernel: String
  var minimumMemoryBytes: UInt64
  /// Of kernel, initial RAM file system and root disk together.
  var sizeBytes: UInt64

  /// What the recipe wrote into `image.json`, as far as it is shown.
  private struct Manifest: Decodable {
    var kernel: String?
    var minimumMemoryBytes: UInt64?
  }

  init(_ image: ImageDirectory) throws {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    do {
      let bytes = try Data(contentsOf: URL(fileURLWithPath: image.path + "/image.json"))
      let manifest = try decoder.decode(Manifest.self, from: bytes)
      // What --image takes, also of a recipe's image that was built under another name.
      name = (image.path as NSString).lastPathComponent
      kernel = manifest.kernel ?? ""
      minimumMemoryBytes = manifest.minimumMemoryBytes ?? 0
    } catch {
      throw Failure(
        "cannot read \(image.path)/image.json: \(error.localizedDescription). Build the image again.")
    }
    directory = image.path
    sizeBytes = ["vmlinuz", "initrd", "disk.qcow2"].reduce(0) { sum, file in
      let attributes = try? FileManager.default.attributesOfItem(atPath: image.path + "/" + file)
      return sum + ((attributes?[.size] as? NSNumber)?.uint64Value ?? 0)
    }
  }
}
