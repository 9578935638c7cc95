using System.Diagnostics;
using System.Reflection;
using System.Text;
using System.Text.RegularExpressions;

namespace PeftServer.EndToEnd.Tests;

/// <summary>One run of the built program, with what it printed so far.</summary>
public sealed partial class PeftServerProgram : IAsyncDisposable
{
    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly Task _reading;

    private PeftServerProgram(Process process)
    {
        _process = process;
        _reading = Task.WhenAll(ReadAsync(process.StandardOutput), ReadAsync(process.StandardError));
    }

    public int Id => _process.Id;

    public string Output
    {
        get
        {
            lock (_output)
            {
                return _output.ToString();
            }
        }
    }

    public static string Metadata(string key) =>
        typeof(PeftServerProgram).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(entry => entry.Key == key).Value!;

    public static PeftServerProgram Start(params string[] arguments)
    {
        var info = new ProcessStartInfo(Metadata("Program"), arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        return new PeftServerProgram(Process.Start(info)!);
    }

    /// <summary>`up` on free ports, once it is ready.</summary>
    public static async Task<PeftServerProgram> UpAsync(Sandbox sandbox, params string[] arguments)
    {
        var program = Start(["up", "--data", sandbox.Data, "--port", "0", "--admin-port", "0", .. arguments]);
        await program.UntilPrintedAsync("Ctrl-C stops everything");
        return program;
    }

    /// <summary>The address behind a name of the status lines.</summary>
    public Uri Address(string name) => new(AddressOf().Matches(Output).First(line => line.Groups[1].Value == name).Groups[2].Value);

    public async Task UntilPrintedAsync(string text)
    {
        var started = Stopwatch.GetTimestamp();
        while (!Output.Contains(text, StringComparison.Ordinal))
        {
            if (_process.HasExited || Stopwatch.GetElapsedTime(started) > TimeSpan.FromMinutes(3))
            {
                throw new InvalidOperationException($"peftserver never printed \"{text}\". It printed:\n{Output}");
            }
            await Task.Delay(50, TestContext.Current.CancellationToken);
        }
    }

    /// <summary>The exit code, once the program has ended and all it printed was read.</summary>
    public async Task<int> ExitedAsync(TimeSpan within)
    {
        await _process.WaitForExitAsync(TestContext.Current.CancellationToken).WaitAsync(within);
        await _reading.WaitAsync(within);
        return _process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            var children = ProcessTree.Below(_process.Id);
            Cli.Processes.Posix.Kill(_process.Id, Cli.Processes.Posix.SIGTERM);
            await _process.WaitForExitAsync(CancellationToken.None).WaitAsync(TimeSpan.FromSeconds(20));
            await ProcessTree.UntilGoneAsync(children, TimeSpan.FromSeconds(10));
        }
        _process.Dispose();
    }

    private async Task ReadAsync(StreamReader reader)
    {
        while (await reader.ReadLineAsync() is { } line)
        {
            lock (_output)
            {
                _output.AppendLine(line);
            }
        }
    }

    [GeneratedRegex(@"^(\w+) +(http://[0-9.:]+)", RegexOptions.Multiline)]
    private static partial Regex AddressOf();
}
