/// A program of Debian's, one of its functions, and three inputs of different size.
struct BenchProgram {
  var name: String
  /// What is offloaded.
  var block: String
  var inputs: [Input]
  /// The program runs in one thread: what others would do at home is not compared here.
  var environment: [String] = []

  struct Input {
    var name: String
    var command: [String]
  }

  static let all = [
    BenchProgram(
      name: "clamscan", block: "cli_scan_fmap",
      inputs: ["100k", "1m", "10m"].map { size in
        Input(
          name: size,
          command: [
            "clamscan", "--no-summary", "--max-scantime=0", "-d", "/data/bench.ndb", "-d", "/data/bench.hdb",
            "/data/scan-\(size)",
          ])
      }),
    BenchProgram(
      name: "compare", block: "SimilarityMetricImage",
      inputs: ["10k", "50k", "300k"].map { size in
        Input(
          name: size,
          command: [
            "compare-im6.q16", "-metric", "RMSE", "-subimage-search", "/data/image-\(size).ppm",
            "/data/image-\(size)-part.ppm", "null:",
          ])
      }, environment: ["MAGICK_THREAD_LIMIT=1", "OMP_NUM_THREADS=1"]),
    BenchProgram(
      name: "lzma", block: "lzma_easy_buffer_encode",
      inputs: ["100k", "1m", "10m"].map { size in
        Input(name: size, command: ["python3.11", "/data/compress.py", "/data/text-\(size)"])
      }),
  ]
}
