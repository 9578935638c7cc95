using System.Globalization;
using System.Text.RegularExpressions;
using PeftServer.Cli;

namespace PeftServer.EndToEnd.Tests;

[Trait("Category", "Long")]
public sealed partial class DemoTests : IDisposable
{
    private const long MemoryLimit = 3L << 30;
    private readonly Sandbox _sandbox = new();

    public void Dispose() => _sandbox.Dispose();

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(42)]
    public async Task Demo_Once_TeachesTheModelAndEndsWithTheResult(int seed)
    {
        await using var demo = PeftServerProgram.Start("demo", "--once", "--data", _sandbox.Data, "--port", "0", "--seed", $"{seed}");
        var memory = 0L;
        var exited = demo.ExitedAsync(TimeSpan.FromMinutes(15));
        while (!exited.IsCompleted)
        {
            memory = Math.Max(memory, MemoryOf(demo.Id));
            await Task.Delay(500, TestContext.Current.CancellationToken);
        }

        (await exited).ShouldBe(ExitCode.Done, demo.Output);
        var result = LastLine().Match(demo.Output);
        result.Success.ShouldBeTrue(demo.Output);
        double.Parse(result.Groups["adapter"].Value, CultureInfo.InvariantCulture).ShouldBeGreaterThanOrEqualTo(0.93);
        memory.ShouldBeInRange(1, MemoryLimit);
    }

    private static long MemoryOf(int root)
    {
        var sum = 0L;
        foreach (var process in ProcessTree.Below(root))
        {
            try
            {
                sum += process.ProportionalSetSize();
            }
            catch (IOException)
            {
                // it has just ended
            }
        }
        return sum;
    }

    [GeneratedRegex(@"^exact match on 300 validation mails: base \d\.\d{3}, adapter (?<adapter>\d\.\d{3})\n\z", RegexOptions.Multiline)]
    private static partial Regex LastLine();
}
