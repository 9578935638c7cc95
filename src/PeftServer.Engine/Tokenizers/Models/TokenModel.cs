namespace PeftServer.Engine.Tokenizers.Models;

/// <summary>A token of a word: its id and the characters of the word it stands for.</summary>
internal readonly record struct Token(int Id, int Start, int End, string? Text = null);

/// <summary>The part of a tokenizer that knows the vocabulary: cuts one pre-tokenised word into tokens.</summary>
internal abstract class TokenModel
{
    public abstract int VocabularySize { get; }

    public abstract int? TokenToId(string token);

    public abstract string? IdToToken(int id);

    /// <summary>Appends the tokens of <paramref name="word"/>, which is not empty.</summary>
    public abstract void Tokenize(ReadOnlySpan<char> word, List<Token> tokens);
}
