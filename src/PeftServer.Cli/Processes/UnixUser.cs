using System.Globalization;

namespace PeftServer.Cli.Processes;

/// <summary>An account of this machine.</summary>
internal sealed record UnixUser(string Name, uint Uid, uint Gid)
{
    /// <summary>The account of that name in /etc/passwd, or null.</summary>
    public static UnixUser? Find(string name)
    {
        var fields = File.ReadLines("/etc/passwd")
            .Select(line => line.Split(':'))
            .FirstOrDefault(fields => fields.Length >= 4 && fields[0] == name);
        return fields is null
            ? null
            : new UnixUser(
                name,
                uint.Parse(fields[2], CultureInfo.InvariantCulture),
                uint.Parse(fields[3], CultureInfo.InvariantCulture));
    }
}
