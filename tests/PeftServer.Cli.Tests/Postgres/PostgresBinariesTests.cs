using PeftServer.Cli.Postgres;

namespace PeftServer.Cli.Tests.Postgres;

public sealed class PostgresBinariesTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Find_Configured_ReadsItsVersion()
    {
        Install("postgres (PostgreSQL) 17.4 (Debian 17.4-1)");

        (await PostgresBinaries.FindAsync(_folder.Path, majorVersion: null, Token)).ShouldBe(new PostgresBinaries(_folder.Path, 17));
    }

    [Fact]
    public async Task Find_ClusterOfAnotherVersion_NamesBoth()
    {
        Install("postgres (PostgreSQL) 17.4");

        var error = await Should.ThrowAsync<CommandException>(() => PostgresBinaries.FindAsync(_folder.Path, majorVersion: 15, Token));

        error.Message.ShouldContain("PostgreSQL 15");
        error.Message.ShouldContain("17");
    }

    [Fact]
    public async Task Find_NothingThere_NamesTheSetting()
    {
        var error = await Should.ThrowAsync<CommandException>(() => PostgresBinaries.FindAsync(_folder.Path, majorVersion: null, Token));

        error.ExitCode.ShouldBe(ExitCode.Environment);
        error.Message.ShouldContain("Postgres:BinPath");
    }

    private void Install(string version)
    {
        foreach (var name in new[] { "initdb", "postgres" })
        {
            File.WriteAllText(_folder[name], $"#!/bin/sh\necho '{version}'\n");
            File.SetUnixFileMode(_folder[name], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
    }
}
