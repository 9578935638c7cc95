using System.Text;
using PeftServer.Engine.Tokenizers.PreTokenizers;

namespace PeftServer.Engine.Tokenizers.Decoders;

/// <summary>Reads the stand-ins of <see cref="ByteAlphabet"/> back into bytes, over all tokens at once: a character may span two.</summary>
internal sealed class ByteLevelDecoder : Decoder
{
    public override List<string> Decode(List<string> tokens)
    {
        var bytes = new List<byte>();
        foreach (var token in tokens)
        {
            if (token.All(c => ByteAlphabet.ByteOf(c) >= 0))
            {
                bytes.AddRange(token.Select(c => (byte)ByteAlphabet.ByteOf(c)));
            }
            else
            {
                bytes.AddRange(Encoding.UTF8.GetBytes(token)); // an added token: it was never spelt in bytes
            }
        }

        return [Encoding.UTF8.GetString([.. bytes])];
    }
}
