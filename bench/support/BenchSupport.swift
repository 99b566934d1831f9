import Foundation

extension [Double] {
  /// The middle sample, or the mean of the middle two. There must be one.
  public var median: Double {
    let sorted = sorted()
    let middle = count / 2
    return count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  }
}

public struct BenchError: Error, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }
}

/// Progress, for people.
public func say(_ text: String) { FileHandle.standardError.write(Data("\(text)\n".utf8)) }
