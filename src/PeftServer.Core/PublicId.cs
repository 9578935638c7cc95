using System.Security.Cryptography;

namespace PeftServer.Core;

/// <summary>Ids of the forms OpenAI's clients know: <c>file-…</c>, <c>ftjob-…</c>, <c>ftevent-…</c>, <c>ftckpt_…</c>.</summary>
public static class PublicId
{
    private const string Alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    public static string NewFile() => "file-" + Random(24);

    public static string NewJob() => "ftjob-" + Random(24);

    public static string NewEvent() => "ftevent-" + Random(24);

    public static string NewCheckpoint() => "ftckpt_" + Random(24);

    /// <summary>Letters and digits that nobody can guess: 5.95 bits each.</summary>
    public static string Random(int length) => RandomNumberGenerator.GetString(Alphabet, length);
}
