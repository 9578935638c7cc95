using System.Net;
using System.Net.Sockets;
using PeftServer.Cli;
using PeftServer.Cli.Client;
using PeftServer.Cli.Processes;

namespace PeftServer.EndToEnd.Tests;

public sealed class UpTests : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(10);
    private readonly Sandbox _sandbox = new();
    private readonly HttpClient _http = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        _http.Dispose();
        _sandbox.Dispose();
    }

    [Fact]
    public async Task Up_Sigterm_EndsEverythingInTime()
    {
        await using var up = await PeftServerProgram.UpAsync(_sandbox);
        var children = ProcessTree.Below(up.Id);
        children.Count.ShouldBeGreaterThanOrEqualTo(5); // api, worker, inference, watcher, postgres

        Posix.Kill(up.Id, Posix.SIGTERM);

        (await up.ExitedAsync(Limit)).ShouldBe(ExitCode.Done);
        await ProcessTree.UntilGoneAsync(children, TimeSpan.Zero);
    }

    [Fact]
    public async Task Up_Sigkill_ChildrenEndInTimeAndDataStays()
    {
        await using var up = await PeftServerProgram.UpAsync(_sandbox);
        var file = await UploadAsync(up);
        var children = ProcessTree.Below(up.Id);

        Posix.Kill(up.Id, Posix.SIGKILL);
        await ProcessTree.UntilGoneAsync(children, Limit);

        await using var again = await PeftServerProgram.UpAsync(_sandbox);
        (await _http.GetAsync(new Uri(again.Address("api"), $"/v1/files/{file}"), Token)).StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Up_EveryProcessKilled_StartsAgainOnTheSameDatabase()
    {
        await using var up = await PeftServerProgram.UpAsync(_sandbox);
        var file = await UploadAsync(up);
        var children = ProcessTree.Below(up.Id);
        foreach (var process in children.Select(child => child.Id).Prepend(up.Id))
        {
            Posix.Kill(process, Posix.SIGKILL);
        }
        await ProcessTree.UntilGoneAsync(children, Limit);
        // The number that the dead server wrote belongs to another program by now.
        var pidFile = Path.Combine(_sandbox.ClusterFolder!, "data", "postmaster.pid");
        File.WriteAllLines(pidFile, ["1", .. File.ReadLines(pidFile).Skip(1)]);

        await using var again = await PeftServerProgram.UpAsync(_sandbox);

        (await _http.GetAsync(new Uri(again.Address("api"), $"/v1/files/{file}"), Token)).StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Theory]
    [InlineData("api")]
    [InlineData("worker")]
    [InlineData("inference")]
    [InlineData("postgres-watcher")]
    public async Task Up_ChildKilled_StartsItAgain(string child)
    {
        await using var up = await PeftServerProgram.UpAsync(_sandbox);

        Posix.Kill(ProcessTree.Below(up.Id).Single(process => process.Runs(child)).Id, Posix.SIGKILL);

        await up.UntilPrintedAsync($"{child.Split('-')[0],-11} runs again");
        (await UploadAsync(up)).ShouldStartWith("file-");
    }

    [Fact]
    public async Task Up_Running_OnlyInferenceMapsLibtorch()
    {
        await using var up = await PeftServerProgram.UpAsync(_sandbox);
        var children = ProcessTree.Below(up.Id);

        children.Single(process => process.Runs("api")).Maps().ShouldNotContain("libtorch");
        children.Single(process => process.Runs("worker")).Maps().ShouldNotContain("libtorch");
        children.Single(process => process.Runs("inference")).Maps().ShouldContain("libtorch");
    }

    [Fact]
    public async Task Up_AsRoot_KeepsTheDatabaseWhereItsUserReachesIt()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "Only root runs PostgreSQL as another user.");
        await using var up = await PeftServerProgram.UpAsync(_sandbox);

        _sandbox.ClusterFolder.ShouldStartWith("/var/lib/peftserver/");
        File.GetUnixFileMode(Path.GetDirectoryName(_sandbox.Data)!).ShouldBe(
            UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    [Fact]
    public async Task Up_SecondOnTheSameData_SaysWhoHasIt()
    {
        await using var up = await PeftServerProgram.UpAsync(_sandbox);
        await using var second = PeftServerProgram.Start("up", "--data", _sandbox.Data, "--port", "0");

        (await second.ExitedAsync(Limit)).ShouldBe(ExitCode.Environment);
        second.Output.ShouldContain($"{_sandbox.Data} is in use by another peftserver");
    }

    [Fact]
    public async Task Up_PortTaken_NamesTheOption()
    {
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();
        var port = ((IPEndPoint)taken.LocalEndpoint).Port;
        await using var up = PeftServerProgram.Start("up", "--data", _sandbox.Data, "--port", $"{port}");

        (await up.ExitedAsync(Limit)).ShouldBe(ExitCode.Environment);
        up.Output.ShouldContain($"Port {port} of 127.0.0.1 is taken");
        up.Output.ShouldContain("--port N");
    }

    [Fact]
    public async Task Up_HalfMadeDatabase_MakesItWhole()
    {
        await using (var first = PeftServerProgram.Start("up", "--data", _sandbox.Data, "--port", "0"))
        {
            while (_sandbox.ClusterFolder is not { } folder || !Directory.EnumerateFileSystemEntries(folder, "data.*").Any())
            {
                await Task.Delay(5, Token);
            }
            Posix.Kill(first.Id, Posix.SIGKILL);
            await first.ExitedAsync(Limit);
        }

        await using var up = await PeftServerProgram.UpAsync(_sandbox);

        (await UploadAsync(up)).ShouldStartWith("file-");
    }

    [Fact]
    public async Task Up_DatabaseGone_DoesNotStartAnEmptyOne()
    {
        await using (await PeftServerProgram.UpAsync(_sandbox))
        {
        }
        Directory.Delete(Path.Combine(_sandbox.ClusterFolder!, "data"), recursive: true);

        await using var up = PeftServerProgram.Start("up", "--data", _sandbox.Data, "--port", "0");

        (await up.ExitedAsync(Limit)).ShouldBe(ExitCode.Environment);
        up.Output.ShouldContain("is not there any more");
    }

    private async Task<string> UploadAsync(PeftServerProgram up)
    {
        using var api = new ApiClient(up.Address("api"), apiKey: null);
        var path = _sandbox.Write("one.jsonl", """{"messages": [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}]}""" + "\n");
        return await api.UploadAsync(path, Token);
    }
}
