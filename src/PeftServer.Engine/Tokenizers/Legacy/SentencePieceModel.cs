namespace PeftServer.Engine.Tokenizers.Legacy;

/// <summary>What a piece of a SentencePiece model is, by the numbers of its file format.</summary>
internal enum PieceType
{
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// <summary>A <c>spiece.model</c> or <c>tokenizer.model</c> (https://github.com/google/sentencepiece, sentencepiece_model.proto).</summary>
internal sealed class SentencePieceModel
{
    public List<(string Piece, double Score, PieceType Type)> Pieces { get; } = [];

    public bool IsBpe { get; private set; }

    public bool ByteFallback { get; private set; }

    public bool AddDummyPrefix { get; private set; } = true;

    public byte[] CharsMap { get; private set; } = [];

    /// <summary>Index of the piece for what is unknown.</summary>
    public int? UnkId => Pieces.FindIndex(p => p.Type is PieceType.Unknown) is >= 0 and var index ? index : null;

    /// <summary>A BPE, or with a <paramref name="charsMap"/> a unigram model, whose pieces another file lists.</summary>
    public static SentencePieceModel OfPieces(IEnumerable<(string Piece, double Score, PieceType Type)> pieces, bool addDummyPrefix, byte[]? charsMap = null)
    {
        var model = new SentencePieceModel { IsBpe = charsMap is null, AddDummyPrefix = addDummyPrefix, CharsMap = charsMap ?? [] };
        model.Pieces.AddRange(pieces);
        model.ByteFallback = model.Pieces.Exists(piece => piece.Type is PieceType.Byte);
        return model.Pieces.Count > 0 ? model : throw new TokenizerException("The vocabulary has no pieces.");
    }

    public static SentencePieceModel Read(ReadOnlySpan<byte> file)
    {
        var model = new SentencePieceModel();
        var reader = new ProtobufReader(file);
        while (reader.Read())
        {
            switch (reader.Field)
            {
                case 1:
                    model.ReadPiece(reader.Bytes);
                    break;
                case 2:
                    model.ReadTrainer(reader.Bytes);
                    break;
                case 3:
                    model.ReadNormalizer(reader.Bytes);
                    break;
            }
        }

        return model.Pieces.Count > 0 ? model : throw new TokenizerException("The SentencePiece model has no pieces.");
    }

    private void ReadPiece(ReadOnlySpan<byte> message)
    {
        var (piece, score, type) = ("", 0f, PieceType.Normal);
        var reader = new ProtobufReader(message);
        while (reader.Read())
        {
            switch (reader.Field)
            {
                case 1:
                    piece = reader.Text;
                    break;
                case 2:
                    score = reader.Float;
                    break;
                case 3:
                    type = (PieceType)(int)reader.Number;
                    break;
            }
        }

        Pieces.Add((piece, score, type));
    }

    private void ReadTrainer(ReadOnlySpan<byte> message)
    {
        const int ModelType = 3;
        const int ByteFallbackField = 35;
        var reader = new ProtobufReader(message);
        while (reader.Read())
        {
            if (reader.Field == ModelType)
            {
                IsBpe = reader.Number switch
                {
                    1 => false,
                    2 => true,
                    _ => throw new TokenizerException("The SentencePiece model is made of words or characters; only unigram and BPE models are in use."),
                };
            }
            else if (reader.Field == ByteFallbackField)
            {
                ByteFallback = reader.Number != 0;
            }
        }
    }

    private void ReadNormalizer(ReadOnlySpan<byte> message)
    {
        var reader = new ProtobufReader(message);
        while (reader.Read())
        {
            switch (reader.Field)
            {
                case 2:
                    CharsMap = reader.Bytes.ToArray();
                    break;
                case 3:
                    AddDummyPrefix = reader.Number != 0;
                    break;
            }
        }
    }
}
