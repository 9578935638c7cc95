using PeftServer.Cli.Up;

namespace PeftServer.Cli.Tests.Up;

public sealed class DataDirectoryTests : IDisposable
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Open_NewFolder_IsItsOwnersAlone()
    {
        using var data = DataDirectory.Open(_folder["data"]);

        File.GetUnixFileMode(data.Root).ShouldBe(OwnerOnly);
    }

    [Fact]
    public void Open_Twice_SecondIsRefusedUntilTheFirstIsClosed()
    {
        using (DataDirectory.Open(_folder["data"]))
        {
            Should.Throw<CommandException>(() => DataDirectory.Open(_folder["data"])).Message.ShouldContain("--data DIR");
        }
        DataDirectory.Open(_folder["data"]).Dispose();
    }

    [Fact]
    public void Open_WhereAFileIs_NamesTheOption()
    {
        File.WriteAllText(_folder["file"], "");

        var error = Should.Throw<CommandException>(() => DataDirectory.Open(_folder["file"]));

        error.ExitCode.ShouldBe(ExitCode.Environment);
        error.Message.ShouldContain("--data DIR");
    }

    [Fact]
    public void Write_Record_IsReadBackAndIsItsOwnersAlone()
    {
        using var data = DataDirectory.Open(_folder["data"]);

        data.Write("record.json", new Record("secret"));

        data.Read<Record>("record.json").ShouldBe(new Record("secret"));
        File.GetUnixFileMode(Path.Combine(data.Root, "record.json")).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    [Fact]
    public void Read_BrokenRecord_NamesTheFile()
    {
        using var data = DataDirectory.Open(_folder["data"]);
        File.WriteAllText(Path.Combine(data.Root, "record.json"), "{");

        Should.Throw<CommandException>(() => data.Read<Record>("record.json")).Message.ShouldContain("record.json");
    }

    private sealed record Record(string Password);
}
