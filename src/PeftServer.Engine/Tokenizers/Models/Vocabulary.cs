using System.Text.Json;

namespace PeftServer.Engine.Tokenizers.Models;

/// <summary>Tokens and ids, both ways. Ids may have gaps.</summary>
internal sealed class Vocabulary
{
    private readonly Dictionary<string, int> _ids;
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _bySpan;
    private readonly Dictionary<int, string> _tokens;

    public Vocabulary(Dictionary<string, int> ids)
    {
        _ids = ids;
        _bySpan = ids.GetAlternateLookup<ReadOnlySpan<char>>();
        _tokens = new Dictionary<int, string>(ids.Count);
        foreach (var (token, id) in ids)
        {
            _tokens[id] = token;
        }
    }

    public int Count => _ids.Count;

    public IReadOnlyDictionary<string, int> Ids => _ids;

    public static Vocabulary Read(JsonElement vocab)
    {
        var ids = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var entry in vocab.EnumerateObject())
        {
            if (entry.Value.ValueKind is not JsonValueKind.Number || !entry.Value.TryGetInt32(out var id) || id < 0)
            {
                throw new TokenizerException($"model.vocab: the id of \"{entry.Name}\" is not a number from 0 up.");
            }

            ids[entry.Name] = id;
        }

        return new Vocabulary(ids);
    }

    public bool TryGetId(ReadOnlySpan<char> token, out int id) => _bySpan.TryGetValue(token, out id);

    /// <summary>The id of the token for what is unknown; throws where the vocabulary lacks it.</summary>
    public int Unknown(string token) => Find(token)
        ?? throw new TokenizerException($"The text has words outside of the vocabulary, and model.unk_token \"{token}\" of tokenizer.json is not in it.");

    public int? Find(string token) => _ids.TryGetValue(token, out var id) ? id : null;

    public string? Find(int id) => _tokens.GetValueOrDefault(id);
}
