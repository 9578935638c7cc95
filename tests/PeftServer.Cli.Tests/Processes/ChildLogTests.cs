using System.Text;
using PeftServer.Cli.Processes;

namespace PeftServer.Cli.Tests.Processes;

public sealed class ChildLogTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task LastLines_MoreThanTheTail_AreTheNewest()
    {
        using var log = new ChildLog(_folder["child.log"]);

        await log.CopyAsync(Lines(Enumerable.Range(1, 5000).Select(i => $"line {i}")), Token);

        log.LastLines(3).ShouldBe(["line 4998", "line 4999", "line 5000"]);
        File.ReadLines(_folder["child.log"]).Count().ShouldBe(5000);
    }

    [Fact]
    public async Task Copy_BytesThatAreNoText_AreKeptAndShownSafely()
    {
        using var log = new ChildLog(_folder["child.log"]);
        byte[] bytes = [0xff, 0xfe, 0x00, (byte)'\n', (byte)'e', (byte)'n', (byte)'d'];

        await log.CopyAsync(new MemoryStream(bytes), Token);

        (await File.ReadAllBytesAsync(_folder["child.log"], Token)).ShouldBe(bytes);
        log.LastLines(1).ShouldBe(["end"]);
    }

    [Fact]
    public async Task Copy_BeyondTheLargestFile_StartsAnotherAndKeepsOne()
    {
        using var log = new ChildLog(_folder["child.log"]);
        var line = new string('x', 1023);

        await log.CopyAsync(Lines(Enumerable.Repeat(line, 40 << 10)), Token); // 40 MB

        Directory.GetFiles(_folder.Path).Length.ShouldBe(2);
        new FileInfo(_folder["child.log"]).Length.ShouldBeLessThanOrEqualTo(16 << 20);
        new FileInfo(_folder["child.log.1"]).Length.ShouldBeLessThanOrEqualTo(16 << 20);
    }

    [Fact]
    public void ForPeople_CompactJson_IsLevelMessageAndException() =>
        LogLine.ForPeople("""{"@t":"2026-01-01","@m":"No database","@l":"Error","@x":"NpgsqlException: refused"}""")
            .ShouldBe("Error No database NpgsqlException: refused");

    [Theory]
    [InlineData("plain text")]
    [InlineData("{ not json")]
    public void ForPeople_AnythingElse_IsAsItCame(string line) => LogLine.ForPeople(line).ShouldBe(line);

    private static MemoryStream Lines(IEnumerable<string> lines) =>
        new(Encoding.UTF8.GetBytes(string.Concat(lines.Select(line => line + "\n"))));
}
